"""The endpoints as tools for language models (Model Context Protocol).

Gradio makes the tools; this module mends what does not work in them.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import handle_file, is_file_obj_with_meta, traverse
from mcp import types

from captioner.web.sent_files import sent_file

_PICTURE = "a data URL (data:image/png;base64,...), or the address or path of a file sent here"
_EXPLAINED = (
    "The photo, as a data URL: data:image/png;base64,... Or send the file to this server by "
    "POST /gradio_api/upload, and give the path that it returns. Other addresses and paths are "
    "refused."
)
_REFUSED = (
    "This server does not fetch addresses and cannot open your files. Give the picture as a data "
    "URL, data:image/png;base64,..., or send it to POST /gradio_api/upload first and give the path "
    "that it returns."
)


def finish_tools(page: gr.Blocks) -> None:
    """Mends the tools of a page, which must have been launched with `mcp_server=True`."""
    server: Any = page.mcp_server_obj
    # Gradio describes a list of files by a schema that no call can satisfy.
    server.tool_to_endpoint.pop("caption_batch", None)
    _take_pictures(server, page)
    _describe_pictures(server)
    _answer_json(server)


def _take_pictures(server: Any, page: gr.Blocks) -> None:
    convert = server.convert_strings_to_filedata

    def convert_and_remember(value: Any, positions: list[list[str | int]]) -> Any:
        arguments = dict(value)
        for position in [name for (name,) in positions if name in value]:
            given = str(value[position])
            if given.startswith("data:"):
                # Gradio writes these pictures to files, but does not note them for deletion.
                file = convert({position: given}, positions)[position]
                traverse(file, lambda f: page.upload_file_set.add(f["path"]), is_file_obj_with_meta)
            elif path := sent_file(given):
                file = handle_file(str(path))
            else:
                raise ValueError(_REFUSED)
            arguments[position] = file
        return arguments

    server.convert_strings_to_filedata = convert_and_remember


def _describe_pictures(server: Any) -> None:
    describe, schema_of = server.get_fn_description, server.get_input_schema

    def get_fn_description(block_fn: Any, tool_name: str) -> tuple[str, dict[str, str]]:
        description, parameters = describe(block_fn, tool_name)
        # The part that is removed names a tool for uploads, which this server does not have.
        return description.replace(server._file_data_tool_description, ""), parameters

    def get_input_schema(*arguments: Any) -> tuple[dict[str, Any], list[list[str | int]]]:
        schema, positions = schema_of(*arguments)
        for (name,) in positions:
            schema["properties"][name] |= {"format": _PICTURE, "description": _EXPLAINED}
        return schema, positions

    server.get_fn_description = get_fn_description
    server.get_input_schema = get_input_schema


def _answer_json(server: Any) -> None:
    def postprocess_output_data(data: list[Any], root_url: str) -> list[Any]:
        found: list[Any] = []
        # Gradio's own client puts the outputs of an endpoint that has several into one list.
        outputs = data[0] if len(data) == 1 and isinstance(data[0], list | tuple) else data
        for output in outputs:
            if is_file_obj_with_meta(output):
                picture = base64.b64encode(Path(output["path"]).read_bytes()).decode()
                found.append(types.ImageContent(type="image", data=picture, mimeType="image/png"))
            else:
                found.append(types.TextContent(type="text", text=json.dumps(output)))
        return found

    server.postprocess_output_data = postprocess_output_data
    handlers = server.mcp_server.request_handlers
    answer = handlers[types.CallToolRequest]

    async def answer_with_structure(request: types.CallToolRequest) -> types.ServerResult:
        result = await answer(request)
        content = result.root.content
        if not result.root.isError and content and content[0].type == "text":
            result.root.structuredContent = json.loads(content[0].text)
        return result

    handlers[types.CallToolRequest] = answer_with_structure
