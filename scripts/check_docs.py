#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks what the pages say that a program can check. One line for each problem, then a summary; exit status 1 if there was a problem.

- Each ```cpp block of README.md and docs/*.md is, to the letter, a region of a file that is compiled and run (tests/test_docs.cpp,
  examples/*.cpp, examples/executors, examples/llama.cpp): the n-th block of a page is the n-th region `// [docs/<page>.md]` … `// [end]`, without its
  indentation; or the region `// [docs/<page>.md n]`, where a page takes them from several files in an order of its own.
- Relative links of all pages lead to files and headings that exist; headers that pages name exist.
- Each word (a header with a reference file) has a page with the fixed headings, and the page's section on errors names the statuses that
  the header's does.
"""

import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
# The first says "keeps" for words that select, "does" for the others.
HEADINGS = [
    ("What it keeps", "What it does"), ("Shapes",), ("Ties and NaN",), ("Errors",), ("Workspace and cost",), ("In the paper",),
    ("Where it differs from released code",), ("Example",)
]

problems = []


def problem(path, line, text):
    problems.append(f"{path.relative_to(ROOT)}:{line}: {text}")


def lines_of(path):
    return path.read_text(encoding="utf-8").splitlines()


def regions_of(paths):
    """Page -> [(file, first line, lines)], in the order of their numbers, then of the files and of the regions in them."""
    regions, numbers = {}, {}
    for path in paths:
        page, begin, place = None, 0, 0
        lines = lines_of(path)
        for number, line in enumerate(lines, 1):
            start = re.fullmatch(r"\s*// \[([\w./-]+\.md)(?: (\d+))?\]\s*", line)
            end = re.fullmatch(r"\s*// \[end\]\s*", line)
            if (start and page) or (end and not page):
                problem(path, number, "a region in a region" if start else "[end] without a region")
            elif start:
                page, begin, place = start[1], number, int(start[2] or 0)
            elif end:
                text = textwrap.dedent("\n".join(lines[begin:number - 1]))
                regions.setdefault(page, []).append((path, begin + 1, text.splitlines()))
                numbers.setdefault(page, []).append(place)
                page = None
        if page:
            problem(path, begin, f"the region of {page} has no [end]")
    for page, places in numbers.items():
        regions[page] = [region for _, region in sorted(zip(places, regions[page]), key=lambda pair: pair[0])]
    return regions


def fences_of(path):
    """Yields (language, first line, lines) of each code block."""
    language, begin, lines = None, 0, lines_of(path)
    for number, line in enumerate(lines, 1):
        fence = re.fullmatch(r"\s*```(.*)", line)
        if fence and language is None:
            language, begin = fence[1].strip(), number
        elif fence:
            yield language, begin + 1, lines[begin:number - 1]
            language = None
    if language is not None:
        problem(path, begin, "a code block without an end")


def check_blocks(pages, regions):
    count = 0
    for page in pages:
        blocks = []
        for language, line, lines in fences_of(page):
            if language.lower() in ("c++", "cc", "cxx", "hpp", "c", "cu", "cuda"):
                problem(page, line - 1, f"write ```cpp, not ```{language}, so that the block is compiled")
            if language == "cpp":
                blocks.append((line, lines))
        count += len(blocks)
        ours = regions.pop(str(page.relative_to(ROOT)), [])
        for (line, block), (source, first, region) in zip(blocks, ours):
            differing = [i for i in range(max(len(block), len(region))) if block[i:i + 1] != region[i:i + 1]]
            if differing:
                at = differing[0]
                problem(page, line + at, f"the block differs from {source.relative_to(ROOT)}:{first + at}")
        for line, _ in blocks[len(ours):]:
            problem(page, line, "a ```cpp block that is no region of a compiled file")
        for source, first, _ in ours[len(blocks):]:
            problem(source, first, f"a region that is no ```cpp block of {page.relative_to(ROOT)}")
    for name, ours in regions.items():
        for source, first, _ in ours:
            problem(source, first, f"a region of {name}, which is no page")
    return count


def prose_of(path):
    """The page without code, line for line."""
    text, inside = [], False
    for line in lines_of(path):
        fence = re.fullmatch(r"\s*```.*", line)
        text.append("" if inside or fence else line)
        inside = inside != bool(fence)
    code = r"`(?:[^`\n]|\n(?!\s*\n))*`"  # may go on in the next line, not in the next paragraph
    return re.sub(code, lambda match: "\n" * match[0].count("\n"), "\n".join(text))


def anchors_of(path):
    anchors, seen, inside = set(), {}, False
    for line in lines_of(path):
        inside = inside != bool(re.fullmatch(r"\s*```.*", line))
        heading = re.fullmatch(r"#{1,6} +(.*?)\s*#*", line)
        if heading and not inside:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            times = seen[slug] = seen.get(slug, -1) + 1
            anchors.add(f"{slug}-{times}" if times else slug)
    return anchors


def check_links(pages):
    count = 0
    for page in pages:
        prose = prose_of(page)
        links = list(re.finditer(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)", prose)) + list(re.finditer(r"(?m)^\[[^\]]+\]:\s*(\S+)", prose))
        for link in links:
            target, line = link[1], prose.count("\n", 0, link.start(1)) + 1
            if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", target):
                continue
            count += 1
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if file != ROOT and ROOT not in file.parents or not file.exists():
                problem(page, line, f"a link to {target}, which does not exist")
            elif anchor and anchor not in anchors_of(file):
                problem(page, line, f"a link to {target}: no such heading")
        for number, text in enumerate(lines_of(page), 1):
            for header in re.findall(r"<(mustdrop/[\w./]+\.hpp)>", text):
                if not (INCLUDE / header).is_file():
                    problem(page, number, f"<{header}> does not exist")
    return count


def sections_of(path):
    """[(heading, line, text)] of the second level."""
    sections, inside = [], False
    for number, line in enumerate(lines_of(path), 1):
        inside = inside != bool(re.fullmatch(r"\s*```.*", line))
        if line.startswith("## ") and not inside:
            sections.append([line[3:].strip(), number, []])
        elif sections:
            sections[-1][2].append(line)
    return [(heading, line, "\n".join(text)) for heading, line, text in sections]


def statuses_in(text, names):
    return {name for name in names if re.search(rf"\b{name}\b", text)}


def errors_of(header):
    """The part of a header's first comment that is labelled Errors; empty if there is none."""
    part, inside = [], False
    for line in lines_of(header):
        label = re.match(r"// ([A-Z]\w*)", line)
        inside = label[1] == "Errors" if label else inside and line.startswith("//")
        part.append(line if inside else "")
    return "\n".join(part)


def check_words():
    names = set(re.findall(r"(?m)^ +(\w+)(?: = 0)?,", (INCLUDE / "mustdrop/status.hpp").read_text(encoding="utf-8"))) - {"ok"}
    if not names:
        problem(INCLUDE / "mustdrop/status.hpp", 1, "no status was found here")
    words = 0
    for header in sorted((INCLUDE / "mustdrop").glob("*.hpp")):
        is_word = header.name != "backend.hpp" and (header.parent / "reference" / header.name).is_file()
        said = statuses_in(errors_of(header), names)
        words += is_word
        if not is_word and not said:
            continue
        if not said:
            problem(header, 1, "a word without a section on errors")
        page = ROOT / "docs" / f"{header.stem}.md"
        if not page.is_file():
            problem(header, 1, f"no page docs/{header.stem}.md")
            continue
        if lines_of(page)[:1] != [f"# {header.stem}"]:
            problem(page, 1, f"the page does not begin with '# {header.stem}'")
        sections = sections_of(page)
        found = [heading for heading, _, _ in sections]
        if is_word:
            for expected in HEADINGS:
                if sum(heading in expected for heading in found) != 1:
                    problem(page, 1, f"'## {' or '.join(expected)}' must be there once")
            for heading, line, _ in sections:
                if not any(heading in expected for expected in HEADINGS):
                    problem(page, line, f"'## {heading}' is not one of the fixed headings")
            order = [i for heading in found for i, expected in enumerate(HEADINGS) if heading in expected]
            if order != sorted(order):
                problem(page, 1, "the headings are not in the fixed order")
        errors = [(line, statuses_in(text, names)) for heading, line, text in sections if heading == "Errors"]
        line, named = errors[0] if errors else (1, set())
        for name in sorted(said - named):
            problem(page, line, f"{name} is an error of {header.name} and not of the page")
        for name in sorted(named - said - {"unsupported"}):  # what backends may add
            problem(page, line, f"{name} is an error of the page and not of {header.name}")
    return words


def main():
    every = [p for p in sorted(ROOT.rglob("*.md")) if not any(part.startswith((".", "build")) for part in p.relative_to(ROOT).parts)]
    pages = [p for p in every if p == ROOT / "README.md" or p.parent == ROOT / "docs"]
    examples = [p for part in ("*.cpp", "executors/*.?pp", "llama.cpp/*.?pp") for p in sorted((ROOT / "examples").glob(part)) if p.is_file()]
    blocks = check_blocks(pages, regions_of([ROOT / "tests/test_docs.cpp", *examples]))
    links = check_links(every)
    words = check_words()
    for text in problems:
        print(text)
    print(f"{len(pages)} pages, {blocks} code blocks, {links} links, {words} words: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
