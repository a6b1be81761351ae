"""A question to a language model behind any OpenAI-compatible endpoint, asked until it is answered.

The standard library alone: a JSON object goes to ``.../chat/completions``, another comes back. What may pass (too many
requests, a server's failure, a lost connection, an answer that is no JSON) is tried again, after a while that doubles
each time and is never the same for two callers; what will not pass is an error at once. Answers are kept on disk.
"""

import email.utils
import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from types import TracebackType
from typing import Any

from aural import __version__
from aural.errors import AuralError, UsageError

URL, MODEL, KEY = "AURAL_LLM_URL", "AURAL_LLM_MODEL", "AURAL_LLM_KEY"
"""Names of the environment variables."""
PASSES = frozenset((408, 409, 425, 429))
"""Statuses below 500 after which the same request may succeed."""
ABOUT_THE_PROMPT = frozenset((400, 413, 422))
LONGEST_RETRY_AFTER = 600.0
"""Seconds; who asks for more is asked another day."""
MOST_BYTES = 1 << 20


class RefusedPromptError(AuralError):
    """The endpoint will not answer this prompt; another it may."""

    def __init__(self, message: str, requests: int) -> None:
        super().__init__(message)
        self.requests = requests


class StoppedError(AuralError):
    """Somebody else's error ended the waiting."""


@dataclass(frozen=True)
class Endpoint:
    """Where the model is, and how patiently it is asked."""

    url: str
    """Complete: ends in /chat/completions."""
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    """Seconds without a sign of life."""
    attempts: int = 6
    first_wait: float = 1.0
    """Seconds before the second attempt; twice as long before each further one."""
    longest_wait: float = 60.0
    concurrency: int = 4
    """Requests under way at once."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    text: str
    tokens: int
    """Billed for prompt and answer, as the endpoint counts; 0 where it does not say."""
    requests: int
    """Sent until this answer came."""


def from_environment() -> Endpoint | None:
    """The endpoint that AURAL_LLM_URL (the part before /chat/completions), _MODEL and _KEY name; None without a URL.

    Raises:
        UsageError: the URL is none, or no model is named.
    """
    url, model = os.environ.get(URL, "").strip().rstrip("/"), os.environ.get(MODEL, "").strip()
    if not url:
        return None
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{URL}={url}: should begin with http:// or https://, such as http://localhost:8000/v1")
    if not model:
        raise UsageError(f"{URL} is set and {MODEL} is not: name the model that {url} should answer with")
    address = url if url.endswith("/chat/completions") else f"{url}/chat/completions"
    return Endpoint(address, model, os.environ.get(KEY) or None)


def ask(endpoint: Endpoint, prompt: str, stop: Event) -> Answer:
    """Send one prompt, again and again if need be.

    Args:
        endpoint: where to.
        prompt: the one message.
        stop: set from another thread, it ends the waiting between attempts.

    Raises:
        RefusedPromptError: the endpoint will not answer this prompt.
        UsageError: it will not answer any: wrong address, model or key.
        StoppedError: ``stop`` was set.
        AuralError: it did not answer in all attempts.
    """
    wait = endpoint.first_wait
    problem = ""
    for attempt in range(1, endpoint.attempts + 1):
        asked_to_wait = 0.0
        try:
            return _answer(_send(endpoint, prompt), attempt)
        except urllib.error.HTTPError as error:
            problem = _said(error, endpoint)
            if error.code in ABOUT_THE_PROMPT:
                raise RefusedPromptError(f"{endpoint.url}: refuses a prompt: {problem}", attempt) from None
            if error.code < 500 and error.code not in PASSES:
                raise UsageError(f"{endpoint.url}: {problem}; check {URL}, {MODEL} and {KEY}") from None
            asked_to_wait = _retry_after(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
        if asked_to_wait > LONGEST_RETRY_AFTER:
            raise AuralError(f"{endpoint.url}: {problem}; it asks to come back in {asked_to_wait:.0f} s: do so")
        if attempt < endpoint.attempts:
            # Jitter: callers that were turned away together must not come back together.
            if stop.wait(max(asked_to_wait, wait * random.uniform(0.5, 1.5))):
                raise StoppedError("stopped before an answer came")
            wait = min(2 * wait, endpoint.longest_wait)
    raise AuralError(f"{endpoint.url}: no answer in {endpoint.attempts} attempts ({problem}); try again later")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected request would lose its content and might carry the key to somebody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send(endpoint: Endpoint, prompt: str) -> Any:
    content = {"model": endpoint.model, "messages": [{"role": "user", "content": prompt}]}
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": f"aural/{__version__}"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    request = urllib.request.Request(endpoint.url, json.dumps(content).encode(), headers, method="POST")
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=endpoint.timeout) as response:
        return json.loads(response.read(MOST_BYTES))


def _answer(body: Any, n_requests: int) -> Answer:
    try:
        text = body["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        raise ValueError("an answer without choices") from None
    usage = body.get("usage")
    counts = [usage.get(name) for name in ("total_tokens", "prompt_tokens", "completion_tokens")] if usage else []
    total, *parts = [count if isinstance(count, int) else 0 for count in counts] or [0]
    return Answer(text if isinstance(text, str) else "", total or sum(parts), n_requests)


def _said(error: urllib.error.HTTPError, endpoint: Endpoint) -> str:
    """Status and message of a refusal, in one line and without the key."""
    try:
        content = error.read(MOST_BYTES).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        content = ""
    try:
        said = json.loads(content)["error"]
        message = said["message"] if isinstance(said, dict) else said
    except (ValueError, LookupError, TypeError):
        message = ""
    line = " ".join(f"{error.code} {error.reason}: {message}".split())[:300].rstrip(": ")
    return line.replace(endpoint.key, "***") if endpoint.key else line


def _retry_after(header: str | None) -> float:
    """Seconds; given as such or as a date."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


# ---------------------------------------------------------------------------------------------------- answers on disk


class AnswerCache:
    """Answers of one model on disk, a line each, added by any thread and used by one process at a time."""

    def __init__(self, path: Path, model: str) -> None:
        self.path = path
        self.model = model
        self.answers: dict[str, Answer] = {}
        """By prompt. Those of earlier runs took no request."""
        self._lock = Lock()

    def __enter__(self) -> "AnswerCache":
        self._file = self.path.open("a+b")
        try:
            self._claim()
            self._file.seek(0)
            content = self._file.read()
            # A run that was killed while it wrote leaves half a line.
            whole = content.rfind(b"\n") + 1
            self._file.truncate(whole)
            for number, line in enumerate(content[:whole].decode("utf-8").split("\n")[:-1], start=1):
                self._read(number, line)
        except BaseException:
            self._file.close()
            raise
        return self

    def _claim(self) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"{self.path}: another run is filling it; wait for that, or write to another file"
            ) from None

    def _read(self, number: int, line: str) -> None:
        try:
            row = json.loads(line)
            if row["model"] == self.model:
                self.answers[str(row["prompt"])] = Answer(str(row["answer"]), int(row["tokens"]), 0)
        except (ValueError, LookupError, TypeError):
            raise UsageError(f"{self.path}:{number}: is no answer; delete that line, which pays for it again") from None

    def add(self, prompt: str, answer: Answer) -> None:
        """Keep an answer; it is on the disk when this returns."""
        row = {"model": self.model, "prompt": prompt, "answer": answer.text, "tokens": answer.tokens}
        with self._lock:
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self.answers[prompt] = answer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
