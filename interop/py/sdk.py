"""Signs in with the OAuth client of the Python MCP SDK and uses the MCP server:
its own discovery, client_id URL, PKCE, refresh and step-up."""
import asyncio

import httpx2
from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

from house import check, done, env, person


class Storage:
    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


asked = []
storage = Storage()


async def redirect(url):
    asked.append(url)


async def callback():
    back = await asyncio.to_thread(person, asked[-1])
    check("the answer has iss", back.get("iss") == env["ISSUER"])
    return AuthorizationCodeResult(code=back["code"], state=back.get("state"), iss=back.get("iss"))


def provider():
    return OAuthClientProvider(
        server_url=env["RESOURCE"],
        client_metadata=OAuthClientMetadata(client_name="Interop", redirect_uris=[env["REDIRECT"]]),
        storage=storage, redirect_handler=redirect, callback_handler=callback, client_metadata_url=env["CLIENT_ID"],
    )


async def call(tool, **args):
    async with httpx2.AsyncClient(auth=provider(), timeout=30, follow_redirects=True) as http:
        async with streamable_http_client(env["RESOURCE"], http_client=http) as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                await session.initialize()
                result = await session.call_tool(tool, args)
                return result.content[0].text


async def main():
    check("list_issues is called", "#1" in await call("list_issues"))
    check("it asked once", len(asked) == 1)
    check("the client_id is the URL", storage.client.client_id == env["CLIENT_ID"])
    first = storage.tokens.refresh_token
    check("there is a refresh token", first)

    storage.tokens.expires_in = -10  # a new provider trusts what was kept
    check("with the tokens that were kept list_issues is called", "#1" in await call("list_issues"))
    check("nobody was asked for it", len(asked) == 1)

    check("create_issue asks for more and is called", "from Python" in await call("create_issue", title="from Python"))
    check("the step-up asked the person", len(asked) == 2 and "issues%3Awrite" in asked[1], asked[-1])
    done()


asyncio.run(main())
