"""Many clients at once on `planish serve` with the story model: short and long prompts, answers that are left, hostile requests.

    python load.py PROGRAM [--minutes 10] [--clients 64] [--seed 1] [--exact]

Shows that no error comes that was not asked for, that every greedy answer equals the one given alone, that memory stays flat and the queue
bounded, and that under load a TERM lets every accepted request end or tells it. With --exact the model computes in f32. Prints one JSON
object; exit status 1 if anything of this does not hold.
"""

import argparse
import http.client
import json
import random
import re
import signal
import socket
import sys
import threading
import time

from server import Server

BEGINNINGS = ["Once upon a time", "There was a little dog", "Tom and Lily went to the park", "One day, a cat", "The sun was warm and"]
JSON = {"Content-Type": "application/json"}
QUEUE = 256
# Kinds of requests and how often they come.
KINDS = {"greedy": 50, "stream": 20, "drawn": 8, "chat": 6, "left": 10, "hostile": 6}


def prompts(count, numbers):
    """Short and long ones; some begin alike."""
    made = []
    for index in range(count):
        text = numbers.choice(BEGINNINGS)
        for _ in range(numbers.choice([0, 1, 3, 12, 40])):
            text += f" They saw {numbers.randrange(100)} birds near the old tree."
        made.append((f"{text} {index}.", numbers.choice([1, 4, 16, 48])))
    return made


def post(server, path, body, timeout=600):
    connection = http.client.HTTPConnection(server.host, server.port, timeout=timeout)
    connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), JSON)
    return connection, connection.getresponse()


def whole(server, path, body):
    connection, response = post(server, path, body)
    text = response.read()
    connection.close()
    return response.status, json.loads(text)


def pieces(response):
    """Events of a stream; None at its proper end."""
    for line in response:
        if line == b"data: [DONE]\n":
            yield None
        elif line.startswith(b"data: "):
            yield json.loads(line[6:])


# Requests that are refused, and how.
HOSTILE = [
    ("/v1/completions", b"{", 400),
    ("/v1/completions", b"[" * 100_000, 400),
    ("/v1/completions", b"\xff\xfe\x00", 400),
    ("/v1/completions", {"prompt": "A", "temperature": "hot"}, 400),
    ("/v1/completions", {"prompt": [5] * 100_000}, 400),
    ("/v1/completions", {"prompt": "A" * (9 << 20)}, 413),
    ("/v1/completions", {"prompt": "A", "n": 10**9}, 400),
    ("/v1/completions", {"prompt": "A", "model": "other"}, 404),
    ("/v1/chat/completions", {"messages": [{"role": "wizard", "content": "A"}]}, 400),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400),
    ("/v1/messages", {"messages": [{"role": "user", "content": "A"}]}, 400),
    ("/v1/responses", {"input": "A", "previous_response_id": "r"}, 400),
    ("/v1/nothing", {}, 404),
]


class Load:
    def __init__(self, server, seed, asked):
        self.server, self.seed, self.asked = server, seed, asked
        self.alone = {}
        self.lock = threading.Lock()
        self.counts, self.wrong = {}, []
        self.over = threading.Event()
        self.ending = False

    def body(self, prompt, tokens, **more):
        return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}

    def learn(self):
        """What each prompt is answered by alone."""
        for prompt, tokens in self.asked:
            status, answer = whole(self.server, "/v1/completions", self.body(prompt, tokens))
            assert status == 200, answer
            self.alone[prompt] = answer["choices"][0]["text"]

    def note(self, kind):
        with self.lock:
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def blame(self, what):
        with self.lock:
            self.wrong.append(what[:300])

    def client(self, number):
        numbers = random.Random(self.seed * 1000 + number)
        while not self.over.is_set():
            kind = numbers.choices(list(KINDS), KINDS.values())[0]
            try:
                getattr(self, kind)(numbers)
                self.note(kind)
            except (OSError, http.client.HTTPException) as error:
                if not self.ending:
                    self.blame(f"{kind}: {error!r}")
                else:
                    self.note("not accepted")
                    time.sleep(0.05)

    def settle(self, status, answer, check):
        """An answer that was accepted must be right; while the server ends, 503 is right too."""
        if status == 503 and self.ending:
            self.note("told to come again")
        elif status != 200:
            self.blame(f"{status}: {answer}")
        else:
            check()

    def greedy(self, numbers):
        prompt, tokens = numbers.choice(self.asked)
        status, answer = whole(self.server, "/v1/completions", self.body(prompt, tokens))

        self.settle(status, answer, lambda: self.compare(prompt, answer["choices"][0]["text"]))

    def compare(self, prompt, text):
        if text != self.alone[prompt]:
            self.blame(f"{prompt!r} was answered otherwise: {text!r}, alone {self.alone[prompt]!r}")

    def stream(self, numbers, leave=None):
        prompt, tokens = numbers.choice(self.asked)
        connection, response = post(self.server, "/v1/completions", self.body(prompt, tokens, stream=True))
        text, ended = "", False
        if response.status != 200:
            self.settle(response.status, response.read().decode(), None)
            return
        for count, event in enumerate(pieces(response)):
            if leave is not None and count >= leave:
                break
            if event is None:
                ended = True
            elif "error" in event:
                # Cut off at the end of the time of grace, and told.
                ended = True
                if not self.ending:
                    self.blame(f"an event of an error: {event}")
                text = self.alone[prompt]
            else:
                text += event["choices"][0]["text"]
        connection.close()
        if leave is not None:
            return
        if not ended:
            self.blame(f"{prompt!r}: a stream without an end")
        else:
            self.compare(prompt, text)

    def left(self, numbers):
        if numbers.random() < 0.3:
            # Gone before anything came.
            body = json.dumps(self.body(*numbers.choice(self.asked))).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            with socket.create_connection((self.server.host, self.server.port), timeout=60) as connection:
                connection.sendall(head.encode() + body[: numbers.choice([len(body), len(body) // 2])])
            return
        self.stream(numbers, leave=numbers.choice([0, 1, 2, 5]))

    def drawn(self, numbers):
        prompt, tokens = numbers.choice(self.asked)
        body = self.body(prompt, tokens) | {"temperature": 1.2, "top_p": 0.9, "min_p": 0.05, "n": 2, "seed": numbers.randrange(2**40)}
        status, answer = whole(self.server, "/v1/completions", body)

        def check():
            used = answer["usage"]["completion_tokens"]
            if len(answer["choices"]) != 2 or not 0 <= used <= 2 * tokens:
                self.blame(f"drawn: {answer}")

        self.settle(status, answer, check)

    def chat(self, numbers):
        prompt, tokens = numbers.choice(self.asked)
        path, body = numbers.choice([
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens}),
            ("/v1/messages", {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens}),
            ("/v1/responses", {"input": prompt, "max_output_tokens": tokens}),
        ])
        status, answer = whole(self.server, path, body)
        self.settle(status, answer, lambda: None)

    def hostile(self, numbers):
        path, body, expected = numbers.choice(HOSTILE)
        try:
            connection, response = post(self.server, path, body)
        except (BrokenPipeError, ConnectionResetError):
            # Refused before all of it was sent.
            if expected != 413 and not self.ending:
                self.blame(f"hung up on {path} {str(body)[:60]}")
            return
        text = response.read()
        connection.close()
        if response.status != expected and not (response.status == 503 and self.ending):
            self.blame(f"{path} {str(body)[:60]}: {response.status} {text[:100]}")

    def waiting(self):
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return int(re.search(r"^planish_requests_waiting (\d+)$", text, re.M)[1])


def watch(load, seconds):
    """Memory and the queue until the time is over."""
    memory, most = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        memory.append(load.server.memory())
        try:
            most = max(most, load.waiting())
        except OSError as error:
            load.blame(f"metrics: {error!r}")
        time.sleep(1)
    return memory, most


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--exact", action="store_true")
    arguments = parser.parse_args()
    asked = prompts(48, random.Random(arguments.seed))
    # A budget that is soon full: what is remembered must not grow for ever.
    server = Server(arguments.program, "--model-name", "story", "--cache-memory", "64", "--queue", str(QUEUE), *(["--exact"] if arguments.exact else []))
    load = Load(server, arguments.seed, asked)
    load.learn()
    threads = [threading.Thread(target=load.client, args=(number,), daemon=True) for number in range(arguments.clients)]
    for thread in threads:
        thread.start()
    memory, waiting = watch(load, 60 * arguments.minutes)
    counts = dict(load.counts)
    # The end under load: clients go on asking.
    load.ending = True
    server.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    load.over.set()
    for thread in threads:
        thread.join(timeout=120)
    stuck = sum(thread.is_alive() for thread in threads)
    code = server.process.wait(timeout=60)
    # The first third fills what may be remembered.
    settled = memory[len(memory) // 3 :] or memory
    middle = len(settled) // 2
    before, after = max(settled[: max(middle, 1)]), max(settled[middle:])
    if stuck:
        load.blame(f"{stuck} clients wait for ever")
    if code != 0:
        load.blame(f"the server ended with {code}")
    if waiting > QUEUE:
        load.blame(f"{waiting} waited")
    if arguments.minutes >= 2 and after > before * 1.05 + (4 << 20):
        load.blame(f"memory grew from {before} to {after}")
    print(json.dumps({
        "minutes": arguments.minutes, "clients": arguments.clients, "requests": counts, "while it ended": {
            kind: load.counts[kind] - counts.get(kind, 0) for kind in load.counts if load.counts[kind] > counts.get(kind, 0)},
        "most_waiting": waiting, "memory_mb": {"first": memory[0] / 1e6, "before": before / 1e6, "after": after / 1e6},
        "wrong": load.wrong[:20], "wrong_count": len(load.wrong)}, indent=1))
    sys.exit(1 if load.wrong else 0)


if __name__ == "__main__":
    main()
