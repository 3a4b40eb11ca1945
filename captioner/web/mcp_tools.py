"""The endpoints as tools for language models (Model Context Protocol): what Gradio leaves to do."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio_client.utils import is_file_obj_with_meta, traverse


def finish_tools(page: gr.Blocks) -> None:
    """Mends the tools of a page that has been launched with `mcp_server=True`."""
    server: Any = page.mcp_server_obj
    # A tool that takes a list of files gets a schema from Gradio that no call of it can satisfy.
    server.tool_to_endpoint.pop("caption_batch", None)
    convert = server.convert_strings_to_filedata

    def convert_and_remember(value: Any, positions: list[list[str | int]]) -> Any:
        # Gradio forgets that it wrote these pictures to a file, and would keep them for ever.
        files = convert(value, positions)
        traverse(files, lambda f: page.upload_file_set.add(f["path"]), is_file_obj_with_meta)
        return files

    server.convert_strings_to_filedata = convert_and_remember
