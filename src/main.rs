//! The program `spikegate`: its allocator and its exit code. Everything else is in the library, from [`spikegate::cli`]
//! on.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    spikegate::cli::main()
}
