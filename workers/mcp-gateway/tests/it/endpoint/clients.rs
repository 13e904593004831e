//! rmcp's own client, in both lifecycles.

use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::json;

use crate::mesh::site::{Site, TOKEN};
use crate::support::object;

async fn works(mode: ClientLifecycleMode) {
    let site = Site::new().await;
    let _machine = site.demo().await;
    let url = format!("http://{}/mcp", site.listen().await);
    let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(TOKEN);
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = ().serve_with_lifecycle(transport, mode).await.expect("it connects");
    let tools = client.list_all_tools().await.expect("tools");
    assert!(tools.iter().any(|tool| tool.name == "demo__echo"), "{tools:?}");
    let call = CallToolRequestParams::new("demo__echo")
        .with_arguments(object(json!({"message": "hello"})));
    let result = client.call_tool(call).await.expect("a result");
    let result = serde_json::to_value(&result).expect("JSON");
    assert_eq!(result["content"][0]["text"], "hello");
    client.cancel().await.expect("it ends");
}

#[tokio::test]
async fn a_client_of_2025_11_25_lists_and_calls() {
    works(ClientLifecycleMode::Initialize).await;
}

#[tokio::test]
async fn a_client_of_2026_07_28_lists_and_calls() {
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    works(ClientLifecycleMode::Discover { preferred_versions }).await;
}
