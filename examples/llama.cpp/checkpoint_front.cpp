// SPDX-License-Identifier: Apache-2.0
// Pictures and words as examples/llava prepares them.
#include <algorithm>

#include <mustdrop/budget.hpp>
#include <mustdrop/cpu/top_k.hpp>

#include "buffers.hpp"
#include "error.hpp"
#include "picture.hpp"
#include "reduction.hpp"
#include "run.hpp"

namespace mustdrop_llama {

namespace md = mustdrop;

namespace {

class checkpoint_reader final : public front {
 public:
  checkpoint_reader(std::string const& folder, int threads) : model_(folder), on_(threads) {}

  prompt ask(std::string const& image, std::string const& question, int tokens) override {
    llava::config const& settings = model_.settings;
    prompt out;
    std::vector<int> const ids = model_.words.encode(llava::in_template(question, 1));
    auto const place = std::find(ids.begin(), ids.end(), settings.image_token);
    if (place == ids.end()) { throw llava::input_error("the question has no <image> token in the template"); }
    out.before.assign(ids.begin(), place), out.after.assign(place + 1, ids.end());
    if (std::count(ids.begin(), ids.end(), settings.image_token) != 1) { throw llava::input_error("<image> in a question"); }

    llava::picture const seen = llava::frame(llava::read_picture(image), model_.prepare, llava::framing::crop);
    llava::reduction how;
    int const patches = settings.vision.patches();
    how.method = llava::method::before, how.tokens = tokens > 0 ? std::min(tokens, patches) : patches;
    double vision_ms = 0, projector_ms = 0;
    on_.reduction_ms = 0;
    llava::image_rows const rows = llava::prepare_picture(on_, settings, model_.weights, llava::pixel_values(seen, model_.prepare), how, 0,
                                                          nullptr, vision_ms, projector_ms);
    picture& to = out.image;
    to.places = patches;
    to.encode_ms = vision_ms + projector_ms, to.reduction_ms = on_.reduction_ms;
    to.rows.assign(rows.rows.data(), rows.rows.data() + rows.rows.size());
    std::vector<float> attention;
    for (auto const r : rows.now) {
      to.at.push_back(rows.anchor[static_cast<std::size_t>(r)]), attention.push_back(rows.cls_attention[static_cast<std::size_t>(r)]);
    }
    llava::stopwatch const time(to.reduction_ms);
    auto const n = static_cast<md::index_t>(attention.size());
    llava::keep_memory keep(1, md::key_set_size(n));
    llava::aligned_buffer scratch(md::top_k_workspace_size(on_.words, n, {}));
    llava::check(md::top_k(on_.words, {}, md::view(static_cast<float const*>(attention.data()), n), {}, {}, keep.lists(), scratch.lend()),
                 "top_k");
    to.key_set = keep.list(0);
    return out;
  }

  std::string text(std::vector<llama_token> const& answer) const override { return model_.words.decode({answer.begin(), answer.end()}); }
  bool ends(llama_token token) const override {
    auto const& all = model_.settings.ends;
    return std::find(all.begin(), all.end(), token) != all.end();
  }

 private:
  llava::model model_;
  llava::computer on_;
};

}  // namespace

std::unique_ptr<front> checkpoint_front(std::string const& folder, int threads) {
  return std::make_unique<checkpoint_reader>(folder, threads);
}

}  // namespace mustdrop_llama
