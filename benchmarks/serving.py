"""Resident memory of the service while many clients ask, well and badly.

    python benchmarks/serving.py [FOLDER] [--rounds 6] [--parallel 50]

Starts ``unispeech-sb serve`` with FOLDER, a recognizer, or a tiny one with
random weights. In each round so many clients upload recordings at the same
time, while others send a file that is too large, one that is broken, half a
request, and a recording that they do not wait for. Each answer has to be the
one that is right: the text that the same recording got in the first round, or
the status of that error. Prints seconds and memory after each round, and exits
with 1 where an answer is wrong. Needs Linux, whose /proc tells the memory.
"""

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from soak import write_files, write_model

URL = "/v1/audio/transcriptions"
MOST_MB = 4
BOUNDARY = "part"


def start(folder, request_s):
    """The service; its address."""
    command = [sys.executable, "-m", "unispeech_sb", "serve", f"asr={folder}"]
    options = {
        "--port": 0, "--max-request-s": request_s, "--max-upload-mb": MOST_MB,
        "--queue": 200, "--threads": 1,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    process = subprocess.Popen(
        command + words, stdout=subprocess.PIPE, text=True
    )
    place = process.stdout.readline().split()[0].removeprefix("http://")
    return process, place


def connect(place, content, length=None):
    """Sends a recording."""
    body = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        f"asr\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; "
        'name="file"; filename="a.wav"\r\n\r\n'
    ).encode()
    body += content + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = http.client.HTTPConnection(place, timeout=300)
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    size = str(length or len(body))
    headers = {"Content-Type": kind, "Content-Length": size}
    connection.request("POST", URL, body, headers)
    return connection


def ask(place, content, length=None):
    """Status and content of the answer."""
    connection = connect(place, content, length)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def one_round(place, contents):
    """Texts of the recordings; raises where another answer is wrong."""
    with ThreadPoolExecutor(len(contents) + 4) as pool:
        wrong = {
            413: pool.submit(ask, place, bytes(2 * MOST_MB * 2**20)),
            400: pool.submit(ask, place, b"no audio"),
            408: pool.submit(ask, place, contents[0][:1000], 100_000),
        }
        right = [pool.submit(ask, place, content) for content in contents]
        gone = connect(place, contents[-1])
        gone.close()
        for status, job in wrong.items():
            found, content = job.result()
            if found != status or set(content) != {"error"}:
                raise ValueError(f"expected {status}; got {found} {content}")
        answers = [job.result() for job in right]
    bad = [answer for answer in answers if answer[0] != 200]
    if bad:
        raise ValueError(f"expected texts; got {bad[0]}")
    return [content["text"] for _, content in answers]


def resident_mb(pid):
    """Resident memory of a process, and what of it is its own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return [
        int(status.partition(f"{name}:")[2].split()[0]) / 1024
        for name in ("VmRSS", "RssAnon")
    ]


def print_rounds(pid, address, contents, num_rounds):
    """Prints the table, row by row."""
    print("round  seconds  MB resident  MB of its own")
    print(" start        - {:12.1f} {:14.1f}".format(*resident_mb(pid)))
    expected = None
    for number in range(num_rounds):
        begin = time.monotonic()
        texts = one_round(address, contents)
        seconds = time.monotonic() - begin
        if texts != (expected or texts):
            raise ValueError("expected the texts of the first round")
        expected = texts
        print("{:6d} {:8.1f} {:12.1f} {:14.1f}".format(
            number + 1, seconds, *resident_mb(pid)
        ))  # fmt: skip


def main():
    """Starts the server, measures it, and ends it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", nargs="?", metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--parallel", type=int, default=50)
    parser.add_argument("--longest-s", type=float, default=4.0)
    parser.add_argument("--request-s", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder
        if folder is None:
            folder = Path(place, "model")
            write_model(folder)
        paths = write_files(
            Path(place), arguments.parallel, arguments.longest_s
        )
        contents = [Path(path).read_bytes() for path in paths]
        process, address = start(folder, arguments.request_s)
        try:
            print_rounds(process.pid, address, contents, arguments.rounds)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
