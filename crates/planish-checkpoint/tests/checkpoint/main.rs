//! Folders read and written: good ones, ones that the peers made, and bad ones with the message that each gives.

mod bad_config;
mod bad_folder;
mod bad_packing;
mod bad_safetensors;
mod golden;
mod methods;
mod mutations;
mod read;
mod sample;
mod write;
