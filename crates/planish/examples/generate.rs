//! Loads a model, quantizing it to 4 bits on the way if it is plain, and continues a text.
//!
//!     cargo run --release -p planish --example generate -- MODEL "Metal is"

use planish::{AutoModelForCausalLM, AutoTokenizer, Device, GenerationConfig, MetalConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().ok_or("usage: generate MODEL [TEXT]")?;
    let text = arguments.next().unwrap_or_else(|| "Metal is".to_owned());
    let model = AutoModelForCausalLM::from_pretrained(&name)
        .device(Device::auto())
        .quantization(MetalConfig::default())
        .load()?;
    let tokenizer = AutoTokenizer::from_pretrained(&name)?;
    let options = GenerationConfig {
        max_new_tokens: 50,
        ..GenerationConfig::default()
    };
    let output = model.generate(&tokenizer.encode(&text)?, &options)?;
    println!("{}", tokenizer.decode(&output)?);
    Ok(())
}
