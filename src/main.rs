//! The `outrigger` binary: hands its environment to the library.

use std::process::ExitCode;

use outrigger::app::{self, Environment};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    app::run(&Environment::system())
}
