"""The two REST calls the server makes besides the socket: list of models, search in a vector store."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tornado.web import RequestHandler

from simulator.schema import (
    Invalid,
    any_object,
    array_of,
    decimal,
    either,
    fields,
    flag,
    integer,
    nullable,
    one_of,
    text,
)
from simulator.settings import SimulatorSettings, model_list

# How many words of a question must be found for a score of 1.
_FULL_SCORE_WORDS = 3
_SMALL_WORDS = "a an and are at do does for how i in is it of on or the to we what when where which you your"
_STOP_WORDS = frozenset(_SMALL_WORDS.split())

SEARCH = fields({"query": either({str: text(shortest=1), list: array_of(text())}, "a string or an array")}, {
    "max_num_results": integer(1, 50),
    "rewrite_query": flag,
    "filters": nullable(any_object),
    "ranking_options": nullable(fields({}, {
        "ranker": one_of("none", "auto", "default-2024-11-15"), "score_threshold": decimal(0.0, 1.0)})),
})


def search(facts: Sequence[tuple[str, str]], request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a page of `vector_store.search_results` for a checked request: facts that share words with the query."""
    queries = [request["query"]] if isinstance(request["query"], str) else list(request["query"])
    wanted = _words(" ".join(queries))
    threshold = (request.get("ranking_options") or {}).get("score_threshold", 0.0)
    scored = [(_score(wanted, _words(f"{name} {fact}")), name, fact) for name, fact in facts]
    found = sorted((entry for entry in scored if entry[0] > 0 and entry[0] >= threshold), key=lambda entry: -entry[0])
    return {
        "object": "vector_store.search_results.page",
        "search_query": queries,
        "data": [
            {
                "file_id": f"file-{name.partition('.')[0]}",
                "filename": name,
                "score": score,
                "attributes": {},
                "content": [{"type": "text", "text": fact}],
            }
            for score, name, fact in found[: request.get("max_num_results", 10)]
        ],
        "has_more": False,
        "next_page": None,
    }


def _words(text_: str) -> set[str]:
    """Return its meaningful words, cut to four letters so that `opening` meets `open`."""
    return {word[:4] for word in re.findall(r"[a-z0-9]+", text_.lower()) if word not in _STOP_WORDS}


def _score(wanted: set[str], fact: set[str]) -> float:
    common = len(wanted & fact)
    return round(min(common / max(min(len(wanted), _FULL_SCORE_WORDS), 1), 1.0), 4)


class RestHandler(RequestHandler):
    """Bearer authentication and errors in the service's shape."""

    def initialize(self, settings: SimulatorSettings) -> None:
        """Take the simulator's settings."""
        self.simulator_settings = settings

    def prepare(self) -> None:
        """Answer 401 to a key that is not accepted."""
        key = self.request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not self.simulator_settings.accepts_key(key):
            self.answer_error(401, Invalid("invalid_api_key", "Incorrect API key provided."))

    def answer_error(self, status: int, refusal: Invalid) -> None:
        """Answer with this status and an `error` object."""
        self.set_status(status)
        error = {"message": refusal.message, "param": refusal.param, "code": refusal.code}
        self.finish({"error": {**error, "type": "invalid_request_error"}})


class ModelsHandler(RestHandler):
    """`GET /v1/models`."""

    def get(self) -> None:
        """List the realtime models, with the day each ends."""
        self.write({"object": "list", "data": model_list(self.simulator_settings)})


class VectorStoreSearchHandler(RestHandler):
    """`POST /v1/vector_stores/{id}/search`."""

    def post(self, store_id: str) -> None:
        """Search the simulator's facts; every store whose id begins with `vs_` has them."""
        if not store_id.startswith("vs_"):
            message = f"Vector store with id '{store_id}' not found."
            self.answer_error(404, Invalid("not_found", message, "vector_store_id"))
            return
        try:
            request = json.loads(self.request.body)
            SEARCH(request, "")
        except ValueError:
            self.answer_error(400, Invalid("invalid_json", "The body is not valid JSON."))
        except Invalid as refusal:
            self.answer_error(400, refusal)
        else:
            self.write(search(self.simulator_settings.facts, request))
