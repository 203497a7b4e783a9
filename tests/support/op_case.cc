#include "tests/support/op_case.h"

#include <gtest/gtest.h>

#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "tests/support/tensors.h"

namespace jamba::test {

namespace {

struct Run {
  std::vector<GuardedTensor> inputs, outputs, output_gradients;
  std::vector<std::optional<GuardedTensor>> input_gradients;

  void expect_guards(const std::string& name) const {
    const auto all = [&](const std::vector<GuardedTensor>& tensors, const char* kind) {
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        EXPECT_TRUE(tensors[i].guards_intact()) << name << ": wrote outside " << kind << " " << i;
      }
    };
    all(inputs, "input");
    all(outputs, "output");
    all(output_gradients, "output gradient");
    for (std::size_t i = 0; i < input_gradients.size(); ++i) {
      if (!input_gradients[i]) continue;
      EXPECT_TRUE(input_gradients[i]->guards_intact())
          << name << ": wrote outside the gradient of input " << i;
    }
  }
};

std::int64_t count(const Operand& operand) {
  std::int64_t n = 1;
  for (const std::int64_t d : operand.dims) n *= d;
  return n;
}

/// What an accumulating gradient holds before backward.
std::vector<double> initial_gradient(const Operand& operand) {
  return normal_values(count(operand), 77, operand.name + ".initial");
}

std::vector<double> output_gradient(const Operand& operand) {
  if (!operand.differentiable) return std::vector<double>(static_cast<std::size_t>(count(operand)));
  return normal_values(count(operand), 78, operand.name + ".gradient");
}

std::vector<Tensor> views(const std::vector<GuardedTensor>& tensors) {
  std::vector<Tensor> out;
  for (const GuardedTensor& t : tensors) out.push_back(t.tensor());
  return out;
}

Run run(const OpCase& op, Stream& stream) {
  Arena scratch(stream.device());
  scratch.poison_on(stream);
  Run r;
  for (const Operand& o : op.inputs) r.inputs.emplace_back(o.dtype, o.dims, o.values);
  for (const Operand& o : op.outputs) {
    r.outputs.emplace_back(o.dtype, o.dims);
    r.output_gradients.emplace_back(o.dtype, o.dims, output_gradient(o));
  }
  op.forward(stream, scratch, views(r.inputs), views(r.outputs));
  if (!op.backward) return r;

  std::vector<Tensor> gradients;
  for (const Operand& o : op.inputs) {
    if (!o.differentiable) {
      r.input_gradients.emplace_back();
      gradients.emplace_back();
      continue;
    }
    if (o.gradient_accumulates) {
      r.input_gradients.emplace_back(std::in_place, o.gradient_dtype, o.dims, initial_gradient(o));
    } else {
      r.input_gradients.emplace_back(std::in_place, o.gradient_dtype, o.dims);
    }
    gradients.push_back(r.input_gradients.back()->tensor());
  }
  op.backward(stream, scratch, views(r.inputs), views(r.outputs), views(r.output_gradients),
              gradients);
  return r;
}

std::vector<Values> reference_inputs(const Run& r) {
  std::vector<Values> in;
  for (const GuardedTensor& t : r.inputs) {
    const std::vector<double> v = t.values();
    in.emplace_back(v.begin(), v.end());
  }
  return in;
}

/// bfloat16 results of arithmetic in float32: so many units in the last place from the exact ones,
/// besides what sums in float32 may lose.
void expect_ulps(const std::string& name, double ulps, const std::vector<double>& got,
                 const std::vector<double>& want) {
  constexpr int kFractionBits = 7;
  double squares = 0;
  for (const double x : want) squares += x * x;
  const double lost = 1e-5 * std::sqrt(squares / static_cast<double>(want.size()));
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double ulp = want[i] == 0 ? 0 : std::ldexp(1.0, std::ilogb(want[i]) - kFractionBits);
    ASSERT_TRUE(std::abs(got[i] - want[i]) <= ulps * ulp + lost)
        << name << ", element " << i << ": " << got[i] << " for " << want[i];
  }
}

void expect_forward(const OpCase& op, const Run& r, const std::vector<Values>& in) {
  const std::vector<Values> want = op.reference(in);
  ASSERT_EQ(want.size(), op.outputs.size()) << op.name;
  for (std::size_t i = 0; i < want.size(); ++i) {
    std::vector<double> real;
    for (const Scalar& s : want[i]) real.push_back(s.real());
    const double error = worst_error(r.outputs[i].values(), real);
    EXPECT_TRUE(error <= tolerance(op))
        << op.name << ": output " << op.outputs[i].name << " off by " << error;
    if (op.outputs[i].dtype == DType::bf16)
      expect_ulps(op.name + ": output " + op.outputs[i].name, op.ulps_bf16, r.outputs[i].values(),
                  real);
  }
}

void expect_backward(const OpCase& op, const Run& r, std::vector<Values> in) {
  constexpr double kStep = 1e-30;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (!op.inputs[i].differentiable) continue;
    std::vector<double> want(in[i].size());
    if (op.inputs[i].gradient_accumulates) want = initial_gradient(op.inputs[i]);
    for (std::size_t j = 0; j < in[i].size(); ++j) {
      in[i][j].imag(kStep);
      const std::vector<Values> out = op.reference(in);
      in[i][j].imag(0);
      for (std::size_t k = 0; k < out.size(); ++k) {
        const std::vector<double> dout = to_doubles(r.output_gradients[k].tensor());
        for (std::size_t e = 0; e < out[k].size(); ++e) {
          if (dout[e] != 0) want[j] += out[k][e].imag() / kStep * dout[e];
        }
      }
    }
    const double error = worst_error(r.input_gradients[i]->values(), want);
    EXPECT_TRUE(error <= tolerance(op))
        << op.name << ": gradient of " << op.inputs[i].name << " off by " << error;
  }
}

void expect_same_bits(const OpCase& op, const Run& a, const Run& b, const std::string& what) {
  for (std::size_t i = 0; i < a.outputs.size(); ++i) {
    EXPECT_TRUE(same_bits(a.outputs[i].tensor(), b.outputs[i].tensor()))
        << op.name << ": output " << op.outputs[i].name << " differs between " << what;
  }
  for (std::size_t i = 0; i < a.input_gradients.size(); ++i) {
    if (!a.input_gradients[i]) continue;
    EXPECT_TRUE(same_bits(a.input_gradients[i]->tensor(), b.input_gradients[i]->tensor()))
        << op.name << ": gradient of " << op.inputs[i].name << " differs between " << what;
  }
}

}  // namespace

double tolerance(const OpCase& op) {
  const auto is_bf16 = [](const Operand& o) { return o.dtype == DType::bf16; };
  const bool bf16 = std::any_of(op.inputs.begin(), op.inputs.end(), is_bf16) ||
                    std::any_of(op.outputs.begin(), op.outputs.end(), is_bf16);
  return bf16 ? op.tolerance_bf16 : op.tolerance_f32;
}

namespace {

void check_on_chosen_target(const OpCase& op) {
  std::optional<Run> first;
  std::string first_name;
  for_each_schedule([&](Stream& stream, const std::string& name) {
    Run r = run(op, stream);
    stream.synchronize();
    if (first) return expect_same_bits(op, *first, r, fmt::format("{} and {}", first_name, name));
    r.expect_guards(op.name);
    const std::vector<Values> in = reference_inputs(r);
    expect_forward(op, r, in);
    if (op.backward) expect_backward(op, r, in);
    first_name = name;
    first = std::move(r);
  });
}

}  // namespace

void check_op(const OpCase& op) {
  if (on_cuda()) return check_on_chosen_target(op);
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::GetChosenTarget().Update(target);
    SCOPED_TRACE(hwy::TargetName(target));
    check_on_chosen_target(op);
  }
  hwy::GetChosenTarget().DeInit();  // back to the best one
}

}  // namespace jamba::test
