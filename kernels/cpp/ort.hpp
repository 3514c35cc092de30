// The few functions of ONNX Runtime that an operator of ours needs.
//
// ONNX Runtime's C API is one table of functions that only ever grows: a place keeps its meaning for
// good ("the ordering of these fields MUST not change after that version has shipped"). So no header
// of it is needed, only the places, as onnxruntime_c_api.h lists them, and the version of the table
// in which the last of them appeared.
//
// Nothing here throws, and nothing needs the C++ library when it runs: so the library has no other
// dependency than C's, and no compiler's runtime meets that of ONNX Runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace ort {

constexpr uint32_t kVersion = 17;  // of the table: the first with KernelContext_ParallelFor

struct Status;      // null where all went well
struct Value;       // a tensor
struct Context;     // of one call of one operator
struct KernelInfo;  // of one node of a graph
struct Options;     // of a session
struct Domain;
struct Shape;

using Api = const void *const *;

enum class Place : size_t {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kKernelInfoGetAttributeFloat = 85,
  kKernelInfoGetAttributeInt64 = 86,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseStatus = 93,
  kReleaseTensorTypeAndShapeInfo = 99,
  kKernelContextParallelFor = 274,
};

template <class Result, class... Arguments>
Result call(Api api, Place place, Arguments... arguments) {
  using Function = Result (*)(Arguments...);
  return reinterpret_cast<Function>(const_cast<void *>(api[static_cast<size_t>(place)]))(arguments...);
}

enum class Type : int { kAny = 0, kFloat = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kInt64 = 7, kBool = 9, kHalf = 10 };

constexpr size_t kMostAxes = 8;

// A tensor's place in memory and its axes; both belong to ONNX Runtime. Empty after a failure.
struct Tensor {
  void *memory = nullptr;
  Type type = Type::kAny;
  size_t num_axes = 0;
  int64_t axes[kMostAxes] = {};

  template <class T>
  T *data() const { return static_cast<T *>(memory); }
  bool is_missing() const { return type == Type::kAny; }
  int64_t last_axis() const { return num_axes == 0 ? 1 : axes[num_axes - 1]; }
  int64_t count() const {
    int64_t n = 1;
    for (size_t i = 0; i < num_axes; i++) n *= axes[i];
    return n;
  }
};

inline Status *failure(Api api, const char *name, const char *message) {
  constexpr int kFail = 1;  // ORT_FAIL
  char text[256];
  std::snprintf(text, sizeof text, "kiku %s: %s", name, message);
  return call<Status *>(api, Place::kCreateStatus, kFail, static_cast<const char *>(text));
}

// One call of an operator: its inputs, its outputs, and the threads of the session. The first failure
// is kept, what follows gives empty tensors, and ONNX Runtime is told in the end.
class Call {
 public:
  Call(Api api, Context *context, const char *name) : api_(api), context_(context), name_(name) {}
  Call(const Call &) = delete;
  Call &operator=(const Call &) = delete;

  bool failed() const { return status_ != nullptr; }
  Status *status() const { return status_; }

  // Fails with the message unless `holds`; false after any failure.
  bool require(bool holds, const char *message) {
    if (!holds && status_ == nullptr) status_ = failure(api_, name_, message);
    return status_ == nullptr;
  }

  Tensor input(size_t i) {
    Tensor found = input_if_any(i);
    return require(!found.is_missing(), "an input is missing") ? found : Tensor{};
  }

  Tensor output(size_t i, const int64_t *axes, size_t num_axes) {
    Tensor found = output_if_any(i, axes, num_axes);
    return require(!found.is_missing(), "an output is missing") ? found : Tensor{};
  }

  // Those that a node may leave out: missing where it does.
  Tensor input_if_any(size_t i) {
    const Value *value = nullptr;
    if (!check(call<Status *>(api_, Place::kKernelContextGetInput, static_cast<const Context *>(context_), i, &value))) return {};
    return value == nullptr ? Tensor{} : tensor(const_cast<Value *>(value));
  }

  Tensor output_if_any(size_t i, const int64_t *axes, size_t num_axes) {
    Value *value = nullptr;
    if (failed()) return {};
    if (!check(call<Status *>(api_, Place::kKernelContextGetOutput, context_, i, axes, num_axes, &value))) return {};
    return value == nullptr ? Tensor{} : tensor(value);
  }

  // Calls work(0) ... work(count - 1) on the session's threads, and waits for all.
  template <class Work>
  void parallel(size_t count, const Work &work) {
    if (failed() || count == 0) return;
    if (count == 1) return work(size_t{0});
    void (*one)(void *, size_t) = [](void *data, size_t i) { (*static_cast<const Work *>(data))(i); };
    void *data = const_cast<void *>(static_cast<const void *>(&work));
    check(call<Status *>(api_, Place::kKernelContextParallelFor, static_cast<const Context *>(context_), one, count, size_t{0}, data));
  }

 private:
  bool check(Status *status) {
    if (status == nullptr) return status_ == nullptr;
    if (status_ == nullptr)
      status_ = status;
    else
      call<void>(api_, Place::kReleaseStatus, status);
    return false;
  }

  Tensor tensor(Value *value) {
    Tensor tensor;
    Shape *shape = nullptr;
    if (!check(call<Status *>(api_, Place::kGetTensorTypeAndShape, static_cast<const Value *>(value), &shape))) return {};
    const Shape *seen = shape;
    int type = 0;
    bool good = check(call<Status *>(api_, Place::kGetDimensionsCount, seen, &tensor.num_axes)) &&
                require(tensor.num_axes <= kMostAxes, "a tensor has more than 8 axes") &&
                check(call<Status *>(api_, Place::kGetDimensions, seen, &tensor.axes[0], tensor.num_axes)) &&
                check(call<Status *>(api_, Place::kGetTensorElementType, seen, &type));
    call<void>(api_, Place::kReleaseTensorTypeAndShapeInfo, shape);
    if (!good || !check(call<Status *>(api_, Place::kGetTensorMutableData, value, &tensor.memory))) return {};
    tensor.type = static_cast<Type>(type);
    return tensor;
  }

  Api api_;
  Context *context_;
  const char *name_;
  Status *status_ = nullptr;
};

// Memory for one call, at a multiple of 64 bytes; `data` is null where there is none to be had.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : block_(std::malloc(bytes + 64)) {}
  ~Scratch() { std::free(block_); }
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;
  void *data() const {
    return block_ == nullptr ? nullptr : reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(block_) + 63) & ~uintptr_t{63});
  }

 private:
  void *block_;
};

// A node of a graph, while its kernel is made.
class Node {
 public:
  Node(Api api, const KernelInfo *info) : api_(api), info_(info) {}

  // An attribute; a missing one is a failure of the node, and 0.
  int64_t integer(const char *name) {
    int64_t value = 0;
    Status *status = call<Status *>(api_, Place::kKernelInfoGetAttributeInt64, info_, name, &value);
    if (status_ == nullptr) status_ = status;
    else if (status != nullptr) call<void>(api_, Place::kReleaseStatus, status);
    return value;
  }

  // Fails with the message unless `holds`.
  void require(bool holds, const char *name, const char *message) {
    if (!holds && status_ == nullptr) status_ = failure(api_, name, message);
  }

  Status *status() const { return status_; }

 private:
  Api api_;
  const KernelInfo *info_;
  Status *status_ = nullptr;
};

// OrtCustomOp, as version 17 has it.
struct CustomOp {
  uint32_t version;
  void *(*create_kernel)(const CustomOp *, Api, const KernelInfo *);
  const char *(*get_name)(const CustomOp *);
  const char *(*get_execution_provider)(const CustomOp *);
  int (*get_input_type)(const CustomOp *, size_t);
  size_t (*get_input_count)(const CustomOp *);
  int (*get_output_type)(const CustomOp *, size_t);
  size_t (*get_output_count)(const CustomOp *);
  void (*compute)(void *, Context *);
  void (*destroy_kernel)(void *);
  int (*get_input_characteristic)(const CustomOp *, size_t);
  int (*get_output_characteristic)(const CustomOp *, size_t);
  int (*get_input_memory)(const CustomOp *, size_t);
  int (*get_variadic_input_least)(const CustomOp *);
  int (*get_variadic_input_homogeneity)(const CustomOp *);
  int (*get_variadic_output_least)(const CustomOp *);
  int (*get_variadic_output_homogeneity)(const CustomOp *);
  Status *(*create_kernel_v2)(const CustomOp *, Api, const KernelInfo *, void **);
  Status *(*compute_v2)(void *, Context *);
  Status *(*infer_shape)(const CustomOp *, void *);
  int (*get_start_version)(const CustomOp *);
  int (*get_end_version)(const CustomOp *);
};

// Makes an operator of a class with: `static constexpr const char *kName`, `static constexpr Type
// kInputs[]`, `kOutputs[]`, a constructor from a Node &, and `void run(Call &) const`. One with
// `kNeededInputs` and `kNeededOutputs` has nodes that may leave the later ones out.
template <class Kernel>
struct Operator : CustomOp {
  struct Held {
    Api api;
    Kernel kernel;
  };

  static constexpr int kRequired = 0, kOptional = 1;  // OrtCustomOpInputOutputCharacteristic
  static constexpr size_t needed_inputs() {
    if constexpr (requires { Kernel::kNeededInputs; }) return Kernel::kNeededInputs;
    return SIZE_MAX;
  }
  static constexpr size_t needed_outputs() {
    if constexpr (requires { Kernel::kNeededOutputs; }) return Kernel::kNeededOutputs;
    return SIZE_MAX;
  }

  constexpr Operator() : CustomOp{} {
    version = kVersion;
    get_name = [](const CustomOp *) -> const char * { return Kernel::kName; };
    get_execution_provider = [](const CustomOp *) -> const char * { return "CPUExecutionProvider"; };
    get_input_type = [](const CustomOp *, size_t i) { return static_cast<int>(Kernel::kInputs[i]); };
    get_input_count = [](const CustomOp *) { return sizeof Kernel::kInputs / sizeof Kernel::kInputs[0]; };
    get_output_type = [](const CustomOp *, size_t i) { return static_cast<int>(Kernel::kOutputs[i]); };
    get_output_count = [](const CustomOp *) { return sizeof Kernel::kOutputs / sizeof Kernel::kOutputs[0]; };
    destroy_kernel = [](void *held) { std::free(held); };  // kernels hold numbers only
    get_input_characteristic = [](const CustomOp *, size_t i) { return i < needed_inputs() ? kRequired : kOptional; };
    get_output_characteristic = [](const CustomOp *, size_t i) { return i < needed_outputs() ? kRequired : kOptional; };
    get_input_memory = [](const CustomOp *, size_t) { return 0; };
    get_variadic_input_least = get_variadic_output_least = [](const CustomOp *) { return 1; };
    get_variadic_input_homogeneity = get_variadic_output_homogeneity = [](const CustomOp *) { return 1; };
    get_start_version = [](const CustomOp *) { return 1; };
    get_end_version = [](const CustomOp *) { return INT32_MAX; };
    create_kernel_v2 = [](const CustomOp *, Api api, const KernelInfo *info, void **held) -> Status * {
      Node node(api, info);
      Kernel kernel(node);
      if (node.status() != nullptr) return node.status();
      void *memory = std::malloc(sizeof(Held));
      if (memory == nullptr) return failure(api, Kernel::kName, "no memory");
      *held = new (memory) Held{api, kernel};
      return nullptr;
    };
    compute_v2 = [](void *opaque, Context *context) -> Status * {
      const Held *held = static_cast<const Held *>(opaque);
      Call call(held->api, context, Kernel::kName);
      held->kernel.run(call);
      return call.status();
    };
  }
};

}  // namespace ort
