"""What a server costs besides tokens a second, on `planish serve` with any model:

    python scripts/bench_serving.py PROGRAM [MODEL] [--prompt-tokens 4096] [--rounds 3] [--threads 1] [--only gap,warm,form,one,http]

gap   the longest silence of a running stream while a long prompt comes in
warm  time to the first token of a long prompt that was read before, over that of one that was not
form  rate of answers by a JSON schema over that of free ones, for one client and for 16
one   rate of one stream over HTTP, over that of `planish bench --batch 1`
http  time of a step of 64 streams over HTTP, less that of `planish bench --batch 64`; the client runs on this machine too, so that on one
      of few cores it needs a core that does not compute: --threads

One JSON object for each round; what is compared is measured one right after the other. On a machine that does other things too, run all of it
with `nice -n -19`: in real time (chrt) the threads that compute would keep those of HTTP from running.
"""

import argparse
import http.client
import json
import random
import re
import subprocess
import threading
import time

SCHEMA = {
    "type": "array", "minItems": 1000, "items": {
        "type": "object", "required": ["name", "age", "pets"], "additionalProperties": False, "properties": {
            "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "pets": {"type": "array", "maxItems": 3, "items": {"enum": ["cat", "dog", "bird"]}}}}}
TOKENS = 200


class Server:
    def __init__(self, program, model, *flags):
        command = [program, "serve", *([model] if model else []), "--port", "0", "--model-name", "m", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if found := re.search(r"http://127.0.0.1:(\d+)", line):
                self.port = int(found[1])
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def stream(self, prompt, tokens, **more):
        """Times of the pieces of an answer, the request's own first; usage last."""
        body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, **more}
        body["stream_options"] = {"include_usage": True}
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        yield time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(response.read().decode())
        try:
            for line in response:
                if line.startswith(b'data: {"') and b'"usage":{' in line:
                    yield json.loads(line[6:])["usage"]
                elif line.startswith(b'data: {"'):
                    yield time.perf_counter()
        finally:
            connection.close()

    def first(self, prompt):
        """Seconds to the first token."""
        sent, came, *_ = self.stream(prompt, 1)
        return came - sent


def drawn(numbers, count):
    return [numbers.randrange(300, 3000) for _ in range(count)]


def gap(server, numbers, length):
    times, over = [], threading.Event()

    def listen():
        for at in server.stream(drawn(numbers, 16), 100_000 if length > 1000 else 440):
            if over.is_set() or isinstance(at, dict):
                return
            times.append(at)

    listener = threading.Thread(target=listen)
    listener.start()
    while len(times) < 20:
        time.sleep(0.01)
    sent = time.perf_counter()
    first = server.first(drawn(numbers, length))
    end = sent + first
    while times[-1] < end and listener.is_alive():
        time.sleep(0.001)
    over.set()
    listener.join()
    pairs = list(zip(times, times[1:]))
    during = [after - before for before, after in pairs if after > sent and before < end]
    before = [after - before for before, after in pairs[2:] if after < sent]
    return {"longest_gap_ms": 1e3 * max(during), "gaps": len(during), "usual_gap_ms": 1e3 * sorted(before)[len(before) // 2], "first_token_s": first}


def warm(server, numbers, length):
    prompt = drawn(numbers, length)
    cold = server.first(prompt)
    again = server.first(prompt[:-1] + drawn(numbers, 1))
    return {"cold_s": cold, "warm_s": again, "warm_over_cold": again / cold}


def rate(server, numbers, clients, **more):
    """Tokens a second of all answers, from the last one's first token to the first one's last."""
    seen = []

    def ask(prompt):
        seen.append(list(server.stream(prompt, TOKENS, **more)))

    threads = [threading.Thread(target=ask, args=(drawn(numbers, 16),)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begin, end, count = max(times[1] for times in seen), min(times[-2] for times in seen), 0
    for _, *times, usage in seen:
        # Pieces may hold several tokens.
        share = sum(begin < at <= end for at in times) / len(times)
        count += share * usage["completion_tokens"]
    return count / (end - begin)


def form(server, numbers, clients):
    free = rate(server, numbers, clients)
    response_format = {"type": "json_schema", "json_schema": {"name": "form", "schema": SCHEMA}}
    formed = rate(server, numbers, clients, response_format=response_format)
    return {"free_tokens_per_s": free, "formed_tokens_per_s": formed, "formed_over_free": formed / free}


def beside_bench(program, model, numbers, clients, threads):
    with Server(program, model, "--parallel", str(clients), *threads) as server:
        server.first(drawn(numbers, 16))
        served = rate(server, numbers, clients)
    command = [program, "bench", *([model] if model else []), "--batch", str(clients), "--prompt-tokens", "16",
               "--generate-tokens", str(TOKENS), "--repeat", "1", "--json", *threads]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    bench = found["batch"][0]["decode_tokens_per_s"]
    steps = [1e3 * clients / found for found in (served, bench)]
    return {"served_tokens_per_s": served, "bench_tokens_per_s": bench, "served_over_bench": served / bench,
            "served_step_ms": steps[0], "bench_step_ms": steps[1], "difference_ms": steps[0] - steps[1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", help="that compute")
    parser.add_argument("--only", default="gap,warm,form,one,http")
    arguments = parser.parse_args()
    only, numbers = arguments.only.split(","), random.Random(1)
    threads = ["--threads", arguments.threads] if arguments.threads else []
    with Server(arguments.program, arguments.model, *threads) as server:
        server.first(drawn(numbers, min(600, arguments.prompt_tokens)))
        for _ in range(arguments.rounds):
            found = {}
            if "gap" in only:
                found["gap"] = gap(server, numbers, arguments.prompt_tokens)
            if "warm" in only:
                found["warm"] = warm(server, numbers, arguments.prompt_tokens)
            if "form" in only:
                found["form"] = {clients: form(server, numbers, clients) for clients in (1, 16)}
            if found:
                print(json.dumps(found), flush=True)
    for name, clients in (("one", 1), ("http", 64)):
        for _ in range(arguments.rounds if name in only else 0):
            print(json.dumps({name: beside_bench(arguments.program, arguments.model, numbers, clients, threads)}), flush=True)


if __name__ == "__main__":
    main()
