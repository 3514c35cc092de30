// What ONNX Runtime and Python call: the operators, and which kernels they use.

#include <atomic>
#include <cctype>
#include <cstdlib>
#include <cstring>

#include "attention_op.hpp"
#include "embed_op.hpp"
#include "ort.hpp"
#include "processor.hpp"
#include "product_op.hpp"
#include "search_op.hpp"
#include "taps_op.hpp"

#if defined(_WIN32)
#define KIKU_EXPORT extern "C" __declspec(dllexport)
#else
#define KIKU_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace kiku {

#if defined(__x86_64__) || defined(_M_X64)
extern const Processor kAvx512, kAvxVnni, kAvx2;
namespace { const Processor *const kProcessors[] = {&kAvx512, &kAvxVnni, &kAvx2}; }
#elif defined(__aarch64__)
extern const Processor kNeon;
namespace { const Processor *const kProcessors[] = {&kNeon}; }
#endif

namespace {

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

// Whether these are the kernels that KIKU_KERNELS asks for, in large letters or small. Without it, or
// with blanks only, all are.
bool is_asked_for(const char *wanted, const char *name) {
  if (wanted == nullptr) return true;
  while (is_space(*wanted)) wanted++;
  size_t length = std::strlen(wanted);
  while (length > 0 && is_space(wanted[length - 1])) length--;
  if (length == 0) return true;
  if (length != std::strlen(name)) return false;
  for (size_t i = 0; i < length; i++)
    if (std::tolower(static_cast<unsigned char>(wanted[i])) != name[i]) return false;
  return true;
}

const Processor *choose() {
  const char *wanted = std::getenv("KIKU_KERNELS");
  for (const Processor *one : kProcessors)
    if (is_asked_for(wanted, one->name) && one->is_here()) return one;
  return nullptr;
}

// Known when the library is loaded: no thread finds one that is half made.
constinit ort::Operator<AttentionOp<float>> attention;
constinit ort::Operator<AttentionOp<uint16_t>> attention_half;
constinit ort::Operator<AttentionOp<int8_t>> attention_bytes;
constinit ort::Operator<EmbedOp> embed;
constinit ort::Operator<ProductOp> product;
constinit ort::Operator<SearchOp> search;
constinit ort::Operator<TapsOp> taps;
const ort::CustomOp *const kOperators[] = {&attention, &attention_half, &attention_bytes, &embed, &product, &search, &taps};

// A domain with all operators. Several threads may make one each: the first stays, and the others are
// left where they are, as nothing points to them.
ort::Status *find_domain(ort::Api api, ort::Domain **found) {
  using ort::Place, ort::Status;
  static constinit std::atomic<ort::Domain *> domain = nullptr;  // lives as long as the library
  *found = domain.load();
  if (*found != nullptr) return nullptr;
  ort::Domain *made = nullptr;
  if (Status *status = ort::call<Status *>(api, Place::kCreateCustomOpDomain, "kiku", &made)) return status;
  for (const ort::CustomOp *one : kOperators)
    if (Status *status = ort::call<Status *>(api, Place::kCustomOpDomainAdd, made, one)) return status;
  if (domain.compare_exchange_strong(*found, made)) *found = made;  // else it is another thread's
  return nullptr;
}

}  // namespace

const Processor *processor() {
  static constinit std::atomic<const Processor *> chosen = nullptr;
  const Processor *one = chosen.load(std::memory_order_relaxed);
  if (one == nullptr) chosen.store(one = choose(), std::memory_order_relaxed);  // every thread finds the same
  return one;
}

}  // namespace kiku

// The name of the processor's kernels that are used; null where there are none for this machine.
KIKU_EXPORT const char *kiku_processor() {
  const kiku::Processor *one = kiku::processor();
  return one == nullptr ? nullptr : one->name;
}

struct ApiBase {
  ort::Api (*get_api)(uint32_t version);
  const char *(*get_version)();
};

// ONNX Runtime calls it when a session's options register this library.
KIKU_EXPORT ort::Status *RegisterCustomOps(ort::Options *options, const ApiBase *base) {
  using ort::Place, ort::Status;
  ort::Api api = base->get_api(ort::kVersion);
  if (api == nullptr) return nullptr;  // too old: loading a graph tells that its operators are missing
  if (kiku::processor() == nullptr) return ort::failure(api, "kernels", "there are none for this processor");
  ort::Domain *domain = nullptr;  // sessions only point to it
  if (Status *status = kiku::find_domain(api, &domain)) return status;
  return ort::call<Status *>(api, Place::kAddCustomOpDomain, options, domain);
}
