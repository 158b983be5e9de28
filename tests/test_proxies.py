#!/usr/bin/env python3
"""The examples of docs/server.md as they stand there, but for names, ports and certificates: nginx and Caddy in front of gemma4 serve, the
unit of systemd; and the container that ../Containerfile builds.

usage: test_proxies.py GEMMA4
What is not installed counts as skipped."""
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

import score

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
expect = score.expect
QUESTION = {"messages": [{"role": "user", "content": "What is the opposite of hot?"}], "temperature": 0}
LONG = {"messages": [{"role": "user", "content": "hi"}], "temperature": 4, "top_k": 0, "top_p": 1, "max_tokens": 1500,
        "logit_bias": {"1": -1000, "16": -1000, "106": -1000}, "stream": True}


def example(heading, starts):
    """The indented block under that heading that begins so."""
    with open(os.path.join(ROOT, "docs", "server.md"), encoding="utf-8") as f:
        text = f.read().split(f"### {heading}\n", 1)[1]
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.M)
    lines = next(b for b in blocks if b.strip().startswith(starts)).splitlines()
    return "\n".join(line[4:] for line in lines).strip() + "\n"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificate(folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj",
                    "/CN=llm.example.org"], check=True, capture_output=True)
    return key, cert


def ask(port, path, body=None, headers=None, timeout=60):
    c = http.client.HTTPSConnection("127.0.0.1", port, context=ssl._create_unverified_context(), timeout=timeout)
    fields = {"Host": "llm.example.org", "Content-Type": "application/json", "Authorization": "Bearer sesame", **(headers or {})}
    c.request("POST" if body is not None else "GET", path, json.dumps(body) if body is not None else None, fields)
    return c, c.getresponse()


def running(direct):
    c = http.client.HTTPConnection("127.0.0.1", direct)
    c.request("GET", "/metrics", headers={"X-Api-Key": "sesame"})
    return int(re.search(r"^gemma4_running (\d+)", c.getresponse().read().decode(), re.M)[1])


def through(name, port, direct):
    """What clients do, through a proxy: a question, a stream as it comes, a client that goes, a page of that name."""
    for _ in range(100):
        try:
            ask(port, "/health", timeout=1)[1].read()
            break
        except OSError:
            time.sleep(0.1)
    status = ask(port, "/v1/models", headers={"Authorization": "Bearer wrong"})[1].status
    expect(status == 401, f"{name}: without a key: {status}")
    r = ask(port, "/v1/chat/completions", QUESTION)[1]
    said = r.read().decode()
    expect(r.status == 200 and "cold" in said, f"{name}: a question: {r.status} {said[:300]}")
    c, r = ask(port, "/v1/chat/completions", LONG)
    began, first, n = time.time(), None, 0
    while n < 6 and r.readline():
        first = first or time.time()
        n += 1
    expect(running(direct) == 1, f"{name}: the first pieces of a stream come while the rest is computed")
    c.sock.shutdown(socket.SHUT_RDWR)
    c.close()
    r.close()
    until = time.time() + 5
    while running(direct) > 0 and time.time() < until:
        time.sleep(0.05)
    expect(running(direct) == 0, f"{name}: a client that goes is noticed")
    r = ask(port, "/", headers={"Authorization": ""})[1]
    expect(r.status == 200 and b"<html" in r.read().lower(), f"{name}: the page: {r.status}")
    r = ask(port, "/v1/chat/completions", QUESTION, headers={"Origin": "https://llm.example.org"})[1]
    expect(r.status == 200, f"{name}: what the page asks: {r.status}, {r.read()[:200]}")
    r = ask(port, "/v1/chat/completions", QUESTION, headers={"Origin": "https://evil.example"})[1]
    expect(r.status == 403, f"{name}: what another page asks: {r.status}")


def nginx(folder, direct):
    port, (key, cert) = free_port(), certificate(folder)
    text = example("TLS", "server {")
    for old, new in (("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"), ("/etc/ssl/llm.pem", cert), ("/etc/ssl/llm.key", key),
                     ("127.0.0.1:8080", f"127.0.0.1:{direct}")):
        expect(old in text, f"nginx: the example has {old}")
        text = text.replace(old, new)
    conf = os.path.join(folder, "nginx.conf")
    with open(conf, "w", encoding="utf-8") as f:
        f.write(f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log;\ndaemon off;\nevents {{}}\nhttp {{\naccess_log off;\n"
                f"client_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\nfastcgi_temp_path {folder}/f;\n"
                f"uwsgi_temp_path {folder}/u;\nscgi_temp_path {folder}/s;\n{text}}}\n")
    return port, ["nginx", "-c", conf, "-e", f"{folder}/error.log"]


def caddy(folder, direct):
    port, (key, cert) = free_port(), certificate(folder)
    text = example("TLS", "llm.example.org {")
    expect("127.0.0.1:8080" in text, "caddy: the example has 127.0.0.1:8080")
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{direct}").replace("llm.example.org {", f":{port} {{\n    tls {cert} {key}")
    with open(os.path.join(folder, "Caddyfile"), "w", encoding="utf-8") as f:
        f.write("{\n    admin off\n    auto_https disable_redirects\n}\n" + text)
    return port, ["caddy", "run", "--config", os.path.join(folder, "Caddyfile"), "--adapter", "caddyfile"]


def proxies(program, keys):
    server = subprocess.Popen([program, "serve", "--port", "0", "--api-key-file", keys, "--cors", "https://llm.example.org"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    direct = int(next(m for m in (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in server.stdout) if m)[1])
    for make in (nginx, caddy):
        if shutil.which(make.__name__) is None or shutil.which("openssl") is None:
            score.skip(f"{make.__name__} is not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            port, command = make(folder, direct)
            proxy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=dict(os.environ, HOME=folder))
            try:
                through(make.__name__, port, direct)
            except Exception as e:
                expect(False, f"{make.__name__}: {type(e).__name__}: {e}")
            proxy.terminate()
            said = proxy.communicate(timeout=20)[1]
            if score.failed:
                print(said[-2000:])
    server.terminate()
    expect(server.wait(20) == 0, "the server ends when it is asked to")


def unit(program, keys):
    if shutil.which("systemd-analyze") is None:
        score.skip("systemd-analyze is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        text = example("systemd", "[Unit]").replace("/usr/local/bin/gemma4", os.path.abspath(program))
        with open(os.path.join(folder, "gemma4.service"), "w", encoding="utf-8") as f:
            f.write(text.replace("/etc/gemma4/keys", keys))
        r = subprocess.run(["systemd-analyze", "verify", "--man=no", os.path.join(folder, "gemma4.service")], capture_output=True, text=True)
        wrong = [line for line in r.stderr.splitlines() if "gemma4.service" in line]
        expect(not wrong, f"systemd-analyze verify: {wrong}")


def container():
    builder = next((b for b in ("docker", "podman") if shutil.which(b) and subprocess.run([b, "info"], capture_output=True).returncode == 0), None)
    if builder is None:
        score.skip("no builder of containers is there, or none that runs")
        return
    r = subprocess.run([builder, "build", "-q", "-t", "gemma4-test", "-f", os.path.join(ROOT, "Containerfile"), ROOT], capture_output=True, text=True)
    expect(r.returncode == 0, f"{builder} build: {r.stderr[-800:]}")
    if r.returncode != 0:
        return
    port = free_port()
    run = subprocess.Popen([builder, "run", "--rm", "--name", f"gemma4-test-{port}", "-p", f"127.0.0.1:{port}:8080", "gemma4-test", "--insecure"])
    said = None
    for _ in range(100):
        try:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            c.request("POST", "/v1/chat/completions", json.dumps(QUESTION), {"Host": "localhost", "Content-Type": "application/json"})
            said = c.getresponse().read().decode()
            break
        except OSError:
            time.sleep(0.1)
    expect(said is not None and "cold" in said, f"{builder} run: a question: {said}")
    subprocess.run([builder, "stop", f"gemma4-test-{port}"], capture_output=True)
    run.wait(30)


def main():
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("sesame\n")
        keys.flush()
        proxies(sys.argv[1], keys.name)
        unit(sys.argv[1], keys.name)
    container()
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
