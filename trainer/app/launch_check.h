#pragma once
namespace jamba {

/// Refuses a job whose launcher promised more ranks than MPI sees: each process would train alone
/// and overwrite the others' run directory.
/// world_size: ranks that MPI sees.
/// Errors: ConfigError naming the launcher's variable and the right way to start.
void check_launcher(int world_size);

}  // namespace jamba
