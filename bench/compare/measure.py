# SPDX-License-Identifier: Apache-2.0
"""Interleaved timing. In each round every contender runs once, in an order that turns, so that a machine that slows down slows all of them;
ratios are taken within a round. The median over rounds is reported, and the spread: half the distance between the quartiles, as a share of
the median."""

import resource
import statistics
import time
from dataclasses import dataclass, field


@dataclass
class Samples:
    seconds: list = field(default_factory=list)  # for one call, one for each round
    faults: float = 0  # page faults for one call

    @property
    def median(self):
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Effort:
    rounds: int
    sample: float  # seconds that a contender runs in a round, at least
    most: float  # seconds for all contenders of one case; rounds are left out beyond it, but never below three
    clock: object = time.perf_counter  # or time.thread_time: what this thread got of a busy machine, of use with one thread only


QUICK = Effort(rounds=7, sample=0.002, most=4)
FULL = Effort(rounds=25, sample=0.005, most=10)


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def repetitions(run, effort, chill):
    """How many calls make a sample. Calls twice first: the first call is not what is measured."""
    run(0)
    run(1)
    if chill is not None:
        return 3
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < effort.sample / 4 or calls == 0:
        run(calls)
        calls += 1
    return max(1, round(calls * effort.sample / (time.perf_counter() - start)))


def one_sample(run, calls, first, chill, clock):
    """Seconds for one call. Inputs rotate: call i gets input first + i. chill(i) empties the caches of input i before each call."""
    if chill is None:
        start = clock()
        for i in range(first, first + calls):
            run(i)
        return (clock() - start) / calls
    spent = 0.0
    for i in range(first, first + calls):
        chill(i)
        start = clock()
        run(i)
        spent += clock() - start
    return spent / calls


def interleave(contenders, effort, chill=None, prepare=lambda name: None):
    """contenders: name → run(i). prepare(name) is called before each of its samples. Returns name → Samples."""
    calls = {}
    for name, run in contenders.items():
        prepare(name)
        calls[name] = repetitions(run, effort, chill)
    samples = {name: Samples() for name in contenders}
    names, begin = list(contenders), time.perf_counter()
    for number in range(effort.rounds):
        if number >= 3 and time.perf_counter() - begin > effort.most:
            break
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            prepare(name)
            contenders[name](number)  # a call that is not timed wakes caches, branch predictors and threads
            before = faults()
            seconds = one_sample(contenders[name], calls[name], number * calls[name], chill, effort.clock)
            samples[name].seconds.append(seconds)
            samples[name].faults += (faults() - before) / calls[name]
    for found in samples.values():
        found.faults /= len(found.seconds)
    return samples


def ratio(above, below):
    """(median, spread) of above/below over the rounds."""
    ratios = sorted(a / b for a, b in zip(above.seconds, below.seconds))
    middle = statistics.median(ratios)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, (high - low) / 2 / middle
