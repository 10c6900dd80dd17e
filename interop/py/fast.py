"""Signs in with FastMCP's client: it opens the system's browser, listens for the
answer itself, and calls tools."""
import asyncio
import warnings

from fastmcp import Client
from fastmcp.client.auth import OAuth

from house import check, done, env

warnings.simplefilter("ignore")


async def main():
    auth = OAuth(client_metadata_url=env["CLIENT_ID"], callback_host="127.0.0.1", callback_timeout=60)
    opened = []
    inner = auth.redirect_handler

    async def redirect(url):
        opened.append(url)
        await inner(url)

    auth.redirect_handler = redirect
    async with Client(env["RESOURCE"], auth=auth) as client:
        tools = {t.name for t in await client.list_tools()}
        check("it sees the tools", {"list_issues", "create_issue"} <= tools, str(tools))
        check("list_issues is called", "#1" in (await client.call_tool("list_issues", {})).content[0].text)
        check("the browser was opened once", len(opened) == 1, str(len(opened)))
        kept = await auth.token_storage_adapter.get_tokens()
        check("there is a refresh token", kept.refresh_token)
        auth.context.current_tokens.access_token = "worn-out"
        auth.context.token_expiry_time = 1
        check("after a refresh list_issues is called", "#1" in (await client.call_tool("list_issues", {})).content[0].text)
        again = await auth.token_storage_adapter.get_tokens()
        check("the refresh token was rotated", again.refresh_token != kept.refresh_token)
        check("nobody was asked for it", len(opened) == 1)
    done()


asyncio.run(main())
