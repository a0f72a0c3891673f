//! The page-fault handler as a program, for the driver's tests: outside of them it is the daemon's own program.

use std::process::ExitCode;

fn main() -> ExitCode {
    flames_node::faults::serve(&std::env::args().nth(1).unwrap_or_default())
}
