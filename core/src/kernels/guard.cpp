// The calls into llama.cpp and ggml that may throw, inside try and catch; guard.rs says which, and why not the others.
//
// llama-cpp-sys-2 tells nobody where its headers are, so what is needed of them is declared here again. The assertions below and those
// in guard.rs, which sees the real declarations, have the same numbers: where llama.cpp changes one, the build fails.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>

extern "C" {

struct llama_context;
struct llama_vocab;
struct ggml_backend;
struct ggml_cgraph;

struct llama_batch {
    int32_t n_tokens;
    int32_t * token;
    float * embd;
    int32_t * pos;
    int32_t * n_seq_id;
    int32_t ** seq_id;
    int8_t * logits;
};

int32_t llama_decode(llama_context * context, llama_batch batch);
void llama_synchronize(llama_context * context);
int32_t llama_tokenize(const llama_vocab * vocab, const char * text, int32_t length, int32_t * tokens, int32_t capacity,
                       bool add_special, bool parse_special);
int ggml_backend_graph_compute(ggml_backend * backend, ggml_cgraph * graph);

} // extern "C"

namespace {

constexpr size_t word = sizeof(void *);
static_assert(sizeof(llama_batch) == 7 * word, "llama_batch");
static_assert(offsetof(llama_batch, n_tokens) == 0 && offsetof(llama_batch, token) == 1 * word, "llama_batch");
static_assert(offsetof(llama_batch, embd) == 2 * word && offsetof(llama_batch, pos) == 3 * word, "llama_batch");
static_assert(offsetof(llama_batch, n_seq_id) == 4 * word && offsetof(llama_batch, seq_id) == 5 * word, "llama_batch");
static_assert(offsetof(llama_batch, logits) == 6 * word, "llama_batch");

// Where what was thrown is written, cut to `capacity` bytes with the zero at the end.
struct Message {
    char * text;
    size_t capacity;
};

template <typename Call> bool caught(Message message, Call call) noexcept {
    try {
        call();
        return true;
    } catch (const std::exception & exception) {
        std::snprintf(message.text, message.capacity, "%s", exception.what());
    } catch (...) {
        std::snprintf(message.text, message.capacity, "an exception of unknown type");
    }
    return false;
}

} // namespace

// Each returns whether nothing was thrown; only then `result` is written.
extern "C" {

// Decodes, and waits: the computation may go on after llama_decode returns.
bool fulcrum_decode(llama_context * context, const llama_batch * batch, int32_t * result, char * text, size_t capacity) {
    return caught({ text, capacity }, [=] {
        const int32_t status = llama_decode(context, *batch);
        llama_synchronize(context);
        *result = status;
    });
}

bool fulcrum_tokenize(const llama_vocab * vocab, const char * input, int32_t length, int32_t * tokens, int32_t n_tokens,
                      bool parse_special, int32_t * result, char * text, size_t capacity) {
    return caught({ text, capacity },
                  [=] { *result = llama_tokenize(vocab, input, length, tokens, n_tokens, false, parse_special); });
}

bool fulcrum_compute(ggml_backend * backend, ggml_cgraph * graph, int * result, char * text, size_t capacity) {
    return caught({ text, capacity }, [=] { *result = ggml_backend_graph_compute(backend, graph); });
}

} // extern "C"
