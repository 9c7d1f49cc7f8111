# Writes stories with the demo model inside planish, one a seed, to read them: tell.py PLANISH OUT.md [--seeds 20]
# The same seeds may give other stories on a CPU with other instructions: sums are rounded in another order.
import argparse
import json
import subprocess


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("planish")
    parser.add_argument("output")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--temperature", default="0.8")
    parser.add_argument("--prompt", default="Once upon a time")
    options = parser.parse_args()
    stories = []
    for seed in range(options.seeds):
        command = [options.planish, "generate", "--json", "--prompt", options.prompt, "--seed", str(seed), "--temperature", options.temperature]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ended = "" if answer["finish"] == "end_token" else "\n\n(cut off)"
        stories.append(f"## Seed {seed}\n\n{options.prompt}{answer['text']}{ended}\n")
    title = "# Stories of the demo model"
    made = f'Seeds 0 to {options.seeds - 1}, temperature {options.temperature}, prompt "{options.prompt}", written by planish on a CPU'
    with open(options.output, "w") as file:
        file.write("\n".join([f"{title}\n\n{made}; nothing chosen or left out.\n"] + stories))


main()
