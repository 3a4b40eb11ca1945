"""Where the page is served, and what is said where it cannot be."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys

import pytest
from app_process import ROOT

from captioner.web.address import AddressUnusable, find_address


def test_the_first_free_port_and_any_free_port() -> None:
    host, port = find_address(None, 0)
    assert host == "127.0.0.1" and 1024 <= port <= 65535
    with socket.create_server((host, port)):
        pass  # it is free
    assert 7860 <= find_address(None, None)[1] < 7960


def test_containers_and_spaces_set_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_SERVER_NAME", "0.0.0.0")
    free = find_address(None, 0)[1]
    monkeypatch.setenv("GRADIO_SERVER_PORT", str(free))
    assert find_address(None, None) == ("0.0.0.0", free)
    assert find_address("localhost", 0)[0] == "localhost", "options come first"
    monkeypatch.setenv("GRADIO_SERVER_PORT", "tcp://10.0.0.1:80")  # by Kubernetes
    assert 7860 <= find_address(None, None)[1] < 7960
    monkeypatch.setenv("GRADIO_SERVER_NAME", "192.0.2.1")
    with pytest.raises(AddressUnusable, match="Leave GRADIO_SERVER_NAME out"):
        find_address(None, None)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]", "::", "[::]"])
def test_ipv6_with_and_without_brackets(host: str) -> None:
    found, port = find_address(host, 0)
    assert found == f"[{host.strip('[]')}]" and port > 0


@pytest.mark.parametrize("host", ["192.0.2.1", "nobody.invalid", "not a host", "a..b", "a" * 64])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    with pytest.raises(AddressUnusable, match=f"^{host} is not an address of this machine"):
        find_address(host, 0)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressUnusable, match=rf"^port {port} is taken\. Choose .*--port"):
            find_address("127.0.0.1", port)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "99999"], "99999 is not a port: give a number from 0 (any free port) to 65535"),
        (["--port", "-1"], "-1 is not a port"),
        (["--port", "TAKEN"], "is taken. Choose another with --port"),
        (["--host", "192.0.2.1"], "192.0.2.1 is not an address of this machine"),
    ],
)
def test_the_command_says_it_in_one_sentence_at_once(options: list[str], message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = [o.replace("TAKEN", str(taken.getsockname()[1])) for o in options]
        program = "import sys, app; status = app.main(sys.argv[1:]); "
        program += "assert 'tensorflow' not in sys.modules; sys.exit(status)"
        done = subprocess.run(
            [sys.executable, "-c", program, *options], cwd=ROOT, capture_output=True, text=True
        )
    assert done.returncode in (1, 2) and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("usage:", " "))]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert not re.search(r"launch\(|server_port|GRADIO|Traceback", done.stderr)


# The app with an empty page, which Gradio cannot reach: as on a machine that is too busy.
SLOW = """
import sys, app, gradio as gr
from captioner.web import page
gr.networking.url_ok = lambda url: False
with gr.Blocks() as empty:
    pass
page.build_page = lambda models, feedback: empty
sys.exit(app._serve([], None, "127.0.0.1", int(sys.argv[1]), app._parser().parse_args([])))
"""


def test_a_page_that_does_not_answer_in_time() -> None:
    command = [sys.executable, "-c", SLOW, str(find_address(None, 0)[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "Cannot serve the page: it does not answer on this machine, which may be too busy. Start "
        "again later.\n"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_while_the_model_is_loaded(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # under nohup, the page would ignore SIGHUP
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(number, before)
    assert process.stdout and process.stdout.readline() == "Loading the model ...\n"
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "")
