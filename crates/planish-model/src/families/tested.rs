//! The families as users see them, with what tests compare of each. tests/tested.rs holds this table against the golden files.

use super::FAMILIES;
use crate::Architecture;

/// A form in which checkpoints of a family are tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// Logits of plain checkpoints equal transformers' (mlx-lm's where transformers has no such model).
    Plain,
    /// Logits of 4-bit metal checkpoints equal transformers' after its own unpacking.
    Metal,
    /// Names, shapes and packing of the tensors written for MLX equal mlx-lm's.
    Mlx,
    /// GGUF files are read as the Hugging Face checkpoint that they were made of.
    Gguf,
}

impl Tested {
    /// The word for listings.
    pub fn name(self) -> &'static str {
        match self {
            Tested::Plain => "plain",
            Tested::Metal => "metal",
            Tested::Mlx => "mlx",
            Tested::Gguf => "gguf",
        }
    }

    /// What is compared.
    pub fn meaning(self) -> &'static str {
        match self {
            Tested::Plain => {
                "logits of plain checkpoints equal those of transformers, or of mlx-lm where it alone has the model"
            }
            Tested::Metal => {
                "logits of 4-bit metal checkpoints equal those of transformers or mlx-lm with the same weights"
            }
            Tested::Mlx => "tensors written for MLX have the names, shapes and bits that mlx-lm gives them",
            Tested::Gguf => "GGUF files are read as the checkpoints that they were made of",
        }
    }

    /// Every form.
    pub const ALL: [Tested; 4] = [Tested::Plain, Tested::Metal, Tested::Mlx, Tested::Gguf];
}

/// A family that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyInfo {
    /// As in `architectures` of config.json.
    pub architecture: &'static str,
    /// `model_type` of config.json.
    pub model_type: &'static str,
    /// The forms that are tested.
    pub tested: Vec<Tested>,
}

/// Families whose tensors are not compared with mlx-lm's.
const NOT_IN_MLX: &[&str] = &[
    "AXK1ForCausalLM",
    "AfmoeForCausalLM",
    "ArceeForCausalLM",
    "AriaForConditionalGeneration",
    "AriaTextForCausalLM",
    "BambaForCausalLM",
    "BioGptForCausalLM",
    "BitNetForCausalLM",
    "BloomForCausalLM",
    "CTRLLMHeadModel",
    "CodeGenForCausalLM",
    "Cohere2MoeForCausalLM",
    "CohereCompassForCausalLM",
    "CwmForCausalLM",
    "DbrxForCausalLM",
    "DeepseekV32ForCausalLM",
    "ExaoneMoeForCausalLM",
    "FalconForCausalLM",
    "FalconMambaForCausalLM",
    "FlexOlmoForCausalLM",
    "FlintForCausalLM",
    "GPTBigCodeForCausalLM",
    "GPTJForCausalLM",
    "GPTNeoForCausalLM",
    "GPTNeoXJapaneseForCausalLM",
    "Gemma3nForCausalLM",
    "Gemma3nForConditionalGeneration",
    "Gemma4ForCausalLM",
    "Gemma4ForConditionalGeneration",
    "Gemma4UnifiedForCausalLM",
    "Gemma4UnifiedForConditionalGeneration",
    "Glm4MoeLiteForCausalLM",
    "GlmMoeDsaForCausalLM",
    "GraniteMoeSWAForCausalLM",
    "GraniteMoeSharedForCausalLM",
    "GraniteSWAForCausalLM",
    "HYV3ForCausalLM",
    "HunYuanMoEV1ForCausalLM",
    "HyperCLOVAXForCausalLM",
    "IQuestCoderForCausalLM",
    "InternLM3ForCausalLM",
    "Jais2ForCausalLM",
    "JambaForCausalLM",
    "KimiK25ForConditionalGeneration",
    "Kolibri1ForCausalLM",
    "LagunaForCausalLM",
    "Lfm3ForCausalLM",
    "Llama4ForCausalLM",
    "Llama4ForConditionalGeneration",
    "Mamba2ForCausalLM",
    "MambaForCausalLM",
    "MellumForCausalLM",
    "MiMoV2FlashForCausalLM",
    "MiniCPM3ForCausalLM",
    "MiniMaxM2ForCausalLM",
    "MinistralForCausalLM",
    "Mistral4ForCausalLM",
    "MptForCausalLM",
    "NanoChatForCausalLM",
    "NemotronHForCausalLM",
    "OPTForCausalLM",
    "OlmoForCausalLM",
    "OpenAIGPTLMHeadModel",
    "PersimmonForCausalLM",
    "Phi4MultimodalForCausalLM",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration",
    "Qwen3VLMoeForConditionalGeneration",
    "Qwen3_5ForCausalLM",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForCausalLM",
    "Qwen3_5MoeForConditionalGeneration",
    "SolarOpenForCausalLM",
    "VaultGemmaForCausalLM",
    "XGLMForCausalLM",
    "YoutuForCausalLM",
];

impl Architecture {
    /// Every family that can be run, by name.
    pub fn families() -> Vec<FamilyInfo> {
        let gguf: Vec<&str> = planish_checkpoint::gguf_classes().collect();
        let mut families: Vec<FamilyInfo> = FAMILIES
            .iter()
            .map(|family| FamilyInfo {
                architecture: family.architecture,
                model_type: family.model_type,
                tested: Tested::ALL
                    .into_iter()
                    .filter(|form| match form {
                        Tested::Plain | Tested::Metal => true,
                        Tested::Mlx => !NOT_IN_MLX.contains(&family.architecture),
                        Tested::Gguf => gguf.contains(&family.architecture),
                    })
                    .collect(),
            })
            .collect();
        families.sort_by_key(|family| family.architecture.to_lowercase());
        families
    }
}
