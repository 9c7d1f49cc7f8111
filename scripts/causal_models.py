"""Which decoders of transformers' causal mapping planish runs, and why not the others, as a table in Markdown.

Rows are the model types of MODEL_FOR_CAUSAL_LM_MAPPING_NAMES without the halves of other models (encoders, decoders that read an
encoder, audio). What runs is what `planish models --json` lists, by model type or by architecture.

Needs transformers. Run: python scripts/causal_models.py [PLANISH]
"""

import json
import subprocess
import sys

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

# Encoders that can be asked for the next token, and decoders of models that read something else through an encoder.
HALVES = """bart bert bert-generation big_bird bigbird_pegasus blenderbot blenderbot-small camembert data2vec-text electra ernie git
marian mbart megatron-bert moshi moss_transcribe_diarize musicgen musicgen_melody mvp pegasus plbart prophetnet reformer rembert roberta
roberta-prelayernorm roc_bert roformer trocr whisper xlm xlm-roberta xlm-roberta-xl xlnet xmod got_ocr2 mllama fuyu emu3 blt
gemma4_assistant gemma4_unified_assistant""".split()
REASONS = {
    "attention with other formulas": "diffllama doge openai-gpt xglm biogpt ctrl cpmant modernbert-decoder gpt_neox_japanese",
    "linear biases of positions without rounding": "bloom mpt",
    "rotation by negative angles, norms without weights": "nanochat",
    "norms inside of blocks, activations rounded to 8 bits": "bitnet",
    "Mamba 1 or RWKV": "mamba falcon_mamba jamba rwkv zamba",
    "another recurrence": "xlstm recurrent_gemma bailing_hybrid kimi_linear minimax olmo_hybrid lfm3 qwen4_exp qwen4_exp_text",
    "Mamba 2 with blocks that several layers share, or in layers of one block": "zamba2 nemotron_h",
    "sparse or chunked attention": "deepseek_v32 deepseek_v4 glm_moe_dsa llama4 llama4_text minimax_m3_vl_text",
    "Gemma 3n and 4: sizes by kind of layer, embeddings for each layer":
        "gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text",
    "experts routed otherwise": "aria_text axk1 axk2 beam cohere2_moe dbrx jetmoe laguna longcat_flash mimo_v2_flash zaya",
}
WHY = {model_type: reason for reason, types in REASONS.items() for model_type in types.split()}


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "planish"
    listing = json.loads(subprocess.run([program, "models", "--json"], check=True, capture_output=True, text=True).stdout)
    known = {family[key] for family in listing["families"] for key in ("architecture", "model_type")}
    decoders = {model_type: name for model_type, name in NAMES.items() if model_type not in HALVES}
    runs = {model_type for model_type, name in decoders.items() if model_type in known or name in known}
    print(f"{len(runs)} of {len(decoders)} decoders run.\n\n| model type | class | |\n|---|---|---|")
    for model_type, name in sorted(decoders.items()):
        print(f"| {model_type} | {name} | {'runs' if model_type in runs else WHY.get(model_type, 'not read yet')} |")


main()
