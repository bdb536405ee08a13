//! Integration tests: one binary, a module for each subject.

mod data_corpus;
mod data_golden;
mod data_input;
mod data_public;
mod engine_forest;
mod engine_golden;
mod engine_listed;
mod engine_policy;
mod engine_smollm2;
mod fuzz_corpus;
mod model_adapter;
mod model_dequant;
mod model_fixture;
mod model_folder;
mod model_gguf;
mod model_safetensors;
mod model_smollm2;
mod on_policy;
mod reward_model;
mod rollout_server;
mod run_invariance;
mod teacher_server;
mod trainer;
mod trainer_long;
mod trainer_reference;
mod trl_trajectory;
