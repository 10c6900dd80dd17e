//! Signs in with the OAuth client of the Rust MCP SDK and uses the MCP server: its
//! own discovery, client_id URL, PKCE and refresh. It prints one JSON object a line.
use std::borrow::Cow;
use std::env::var;
use std::io::{Read, Write};
use std::net::TcpStream;

use rmcp::model::CallToolRequestParams;
use rmcp::transport::auth::{AuthClient, AuthorizationRequest, OAuthState};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::ServiceExt;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn check(text: &str, ok: bool, more: &str) {
    let text = if more.is_empty() { text.to_string() } else { format!("{text}: {more}") };
    println!("{}", serde_json::json!({"ok": ok, "text": text}));
    if !ok {
        std::process::exit(1);
    }
}

/// Opens an address in a browser without cookies, signs in, allows, and returns
/// where the browser was sent.
fn person(address: &str) -> Outcome<String> {
    let doorbell = var("PERSON")?;
    let host = doorbell.trim_start_matches("http://").trim_end_matches('/').to_string();
    let escaped: String = address
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect();
    let mut wire = TcpStream::connect(&host)?;
    write!(wire, "GET /?url={escaped} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    wire.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if !head.contains(" 200 ") {
        return Err(body.into());
    }
    Ok(body.trim().to_string())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let resource = var("RESOURCE")?;
    let mut state = OAuthState::new(resource.as_str(), None).await?;
    let request = AuthorizationRequest::new(var("REDIRECT")?)
        .with_initial_scope_selection()
        .with_client_metadata_url(var("CLIENT_ID")?);
    state.start_authorization(request).await?;
    let address = state.get_authorization_url().await?;
    let back = tokio::task::spawn_blocking(move || person(&address)).await??;
    check("the answer has iss", back.contains("iss="), &back);
    state.handle_callback_url(&back).await?;
    let (client_id, tokens) = state.get_credentials().await?;
    check("the client_id is the URL", client_id == var("CLIENT_ID")?, &client_id);
    check("there are tokens", tokens.is_some(), "");
    let before = serde_json::to_value(&tokens)?;
    check("there is a refresh token", before["refresh_token"].is_string(), "");
    state.refresh_token().await?;
    let after = serde_json::to_value(state.get_credentials().await?.1)?;
    check("the refresh token was rotated", after["refresh_token"].is_string() && after["refresh_token"] != before["refresh_token"], "");

    let manager = state.into_authorization_manager().ok_or("not authorized")?;
    let transport = StreamableHttpClientTransport::with_client(
        AuthClient::new(reqwest::Client::new(), manager),
        StreamableHttpClientTransportConfig::with_uri(resource),
    );
    let client = ().serve(transport).await?;
    let tools = client.list_all_tools().await?;
    check("it sees the tools", tools.iter().any(|t| t.name == "create_issue"), "");
    let result = client.call_tool(CallToolRequestParams::new(Cow::from("list_issues"))).await?;
    check("list_issues is called", serde_json::to_string(&result)?.contains("#1"), "");
    client.cancel().await?;
    println!("{}", serde_json::json!({"done": true}));
    Ok(())
}
