"""A `planish serve` for a test: started, found, and ended."""

import os
import pathlib
import re
import signal
import subprocess
import threading

FOLDER = pathlib.Path(__file__).parent


class Server:
    """The story model behind HTTP, or another. `with` ends it by a signal, as an operator would."""

    def __init__(self, program, *flags, model=None):
        # The story model has no chat template of its own.
        what = [model] if model else ["--chat-template", FOLDER / "template.jinja"]
        command = [program, "serve", *what, "--port", "0", *flags]
        environment = {name: value for name, value in os.environ.items() if name != "PLANISH_API_KEY"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        for line in self.process.stderr:
            found = re.search(r"http://([\d.]+):(\d+)/v1", line)
            if found:
                self.host, self.port = found[1], int(found[2])
                break
        else:
            raise SystemExit(f"{program} serve ended without listening")
        self.url = f"http://{self.host}:{self.port}"
        # What it says later must not fill the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=60) != 0:
            raise SystemExit(f"the server ended with {self.process.returncode}")

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
