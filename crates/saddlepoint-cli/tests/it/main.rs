//! The real binary on small inputs: what it prints, its exit codes, and what it leaves on the disk.

mod ask;
mod bad_input;
mod convert;
mod frontier;
mod help;
mod machine_output;
mod memory;
mod model;
mod prepare;
mod reward;
mod saddle;
mod slow_resume;
mod solve;
mod solve_dag;
mod solve_tuning;
mod train;
