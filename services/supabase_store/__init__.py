"""The Store over a Supabase project's data API (PostgREST), as `service_role`.

`store` is the `Store`, `calls` its part for the phone, `requests` bounds each request and says what a refusal means.
"""

from __future__ import annotations

from .store import PAGE_ROWS, SupabaseStore

__all__ = ["PAGE_ROWS", "SupabaseStore"]
