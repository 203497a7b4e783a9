#include "trainer/rank_model.h"

#include "trainer/parallel_rules.h"

namespace jamba {

namespace {

std::vector<Chunk> chunks_of(const RunConfig& c, const Mesh& mesh) {
  return stage_chunks(c.model, mesh.shape(), mesh.at().pp, static_cast<int>(c.parallel.pp_chunks),
                      parse_layers(c.parallel.pp_layers));
}

ParameterOptions parameter_options(const RunConfig& c, const Mesh& mesh) {
  ParameterOptions options;
  options.compute_dtype = c.train.dtype;
  options.sequence_parallel = c.parallel.sequence_parallel;
  options.zero.stage = static_cast<ZeroStage>(c.parallel.zero);
  options.zero.num_micro = num_micro(c, mesh.shape());
  if (c.parallel.deterministic == Deterministic::tree) {
    options.zero.accumulation = Accumulation::tree;
  }
  return options;
}

std::vector<JambaModel> make_chunks(const RunConfig& c, const Mesh& mesh, Parameters& parameters) {
  std::vector<JambaModel> out;
  for (const Chunk& chunk : chunks_of(c, mesh)) out.emplace_back(c.model, parameters, chunk);
  return out;
}

const Mesh& prepared(const Mesh& mesh, Stream& stream) {
  mesh.prepare(stream);
  return mesh;
}

}  // namespace

std::int64_t num_micro(const RunConfig& c, const MeshShape& mesh) {
  return c.train.global_batch_size / (c.train.micro_batch_size * mesh.dp);
}

Mesh make_mesh(const RunConfig& c, Communicator& world) {
  const ParallelConfig& p = c.parallel;
  const MeshShape shape = resolve_mesh(world.size(), {p.tp, p.pp, p.cp, p.ep});
  const std::int64_t kv_heads = c.model.num_key_value_heads;
  const bool shares_heads = kv_heads > 0 && shape.tp > kv_heads;
  return Mesh(world, shape, shares_heads ? shape.tp / static_cast<int>(kv_heads) : 1);
}

RankModel::RankModel(const RunConfig& c, const Mesh& mesh, Stream& stream, DecayRule rule)
    : mesh_(prepared(mesh, stream)),
      parameters_(stream, c.model, mesh, chunks_of(c, mesh), parameter_options(c, mesh)),
      chunks_(make_chunks(c, mesh, parameters_)),
      optimizer_(parameters_, c.optimizer, rule),
      runner_(mesh, stream, parameters_, chunks_,
              c.train.recompute == Recompute::block ? Recomputation::on : Recomputation::off) {}

}  // namespace jamba
