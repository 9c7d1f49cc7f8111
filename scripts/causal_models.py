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
    "attention that is a difference of two": "diffllama",
    "masks made of values, experts of one column each": "doge",
    "biases of positions from a table of distances": "cpmant",
    "a head of two layers": "modernbert-decoder",
    "RWKV, xLSTM or RG-LRU: another recurrence": "rwkv xlstm recurrent_gemma",
    "Mamba 1 in heads, blocks that several layers share": "zamba",
    "a recurrence whose decay is fixed, or of each channel": "bailing_hybrid kimi_linear minimax",
    "delta nets with doubled strengths, an n-gram table": "olmo_hybrid qwen4_exp qwen4_exp_text",
    "blocks that several layers share, of hidden state and embedding side by side": "zamba2",
    "layers that run several times": "hrm_text",
    "several hidden states side by side (hyper-connections)": "deepseek_v4 hy_v4",
    "sparse attention by blocks": "minimax_m3_vl_text",
    "latent attention with windows and gates": "dots3_note dots3_note_text",
    "norms with gates": "axk2",
    "experts that do nothing, two blocks of attention in a layer": "longcat_flash",
    "a temperature that grows at every position": "beam",
    "experts of attention heads": "jetmoe",
    "convolutions of queries and keys, routers that read each other": "zaya",
    "convolutions around blocks": "inkling_text inkling2_text",
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
