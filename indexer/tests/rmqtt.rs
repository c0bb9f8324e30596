//! RMQTT with its plug-in `rmqtt-acl` and the access list that the project writes for it: the same matrix, and the same
//! known gap as Mosquitto.
//!
//! RMQTT runs as a library here, without TLS: the user name that a client gives stands for the common name that
//! `cert_cn_as_username` takes from its certificate. Its program, rmqttd, is too large to build for a test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, in their helpers too"
)]

mod matrix;
mod outside;
mod secured;
mod support;

use std::net::SocketAddr;

use edge_identity::broker_files::rmqtt_acl;
use edge_identity::limits::Limits;
use edge_identity::subject::{Role, Subject};
use outside::{Client, MARK, TESTER};
use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use rumqttc::v5::MqttOptions;
use rumqttc::v5::mqttbytes::v5::ConnectReturnCode;
use rumqttc::v5::{AsyncClient, ConnectionError};
use secured::subject;
use support::DEADLINE;

/// RMQTT with these settings of its plug-in, until the test ends.
async fn start(acl: &str) -> SocketAddr {
    let context = ServerContext::new()
        .busy_check_enable(false)
        .plugins_config_map_add("rmqtt-acl", acl)
        .plugins_config_map_add("rmqtt-shared-subscription", "strategy = \"round_robin\"\n")
        .build()
        .await;
    rmqtt_acl::register(&context, true, false).await.unwrap();
    rmqtt_shared_subscription::register(&context, true, false)
        .await
        .unwrap();
    let listener = Builder::new()
        .name("external")
        .laddr(SocketAddr::from(([127, 0, 0, 1], 0)))
        .allow_anonymous(false)
        .bind()
        .unwrap()
        .tcp()
        .unwrap();
    let address = listener.local_addr().unwrap();
    let server = MqttServer::new(context)
        .listener_by_id(listener, address.port())
        .build();
    tokio::spawn(async move { server.run().await });
    address
}

fn options(broker: SocketAddr, client_id: &str, user: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, broker.ip().to_string(), broker.port());
    options.set_credentials(user, "");
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_what_the_list_says_but_for_the_known_gap() {
    let unbound = Limits::default();
    let roles = Role::ALL.into_iter().filter(|role| *role != Role::Broker);
    let roles: Vec<(Role, String)> = roles.map(|role| (role, format!("{role}-1"))).collect();
    let subjects: Vec<Subject> = roles
        .iter()
        .map(|(role, name)| subject(*role, name))
        .collect();
    // Before the rules: what the test itself needs.
    let acl = rmqtt_acl(subjects.iter().map(|subject| (subject, &unbound)));
    let tests = format!(
        "rules = [\n[\"allow\", {{ user = \"{TESTER}\" }}],\n[\"allow\", \"all\", \"subscribe\", [\"{MARK}\"]],\n"
    );
    let broker = start(&acl.replace("rules = [\n", &tests)).await;
    let mut tester = Client::connect(options(broker, TESTER, TESTER))
        .await
        .unwrap();
    let mut wrong = Vec::new();
    for (role, name) in &roles {
        let mut client = Client::connect(options(broker, name, name)).await.unwrap();
        wrong.extend(client.differs_from_matrix(*role, name, &mut tester).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_on_the_list_does_not_get_in() {
    let known = subject(Role::Sensor, "cam-1");
    let broker = start(&rmqtt_acl([(&known, &Limits::default())])).await;
    Client::connect(options(broker, "cam-1", "cam-1"))
        .await
        .unwrap();
    let (_client, mut connection) = AsyncClient::new(options(broker, "cam-2", "cam-2"), 8);
    let refused = tokio::time::timeout(DEADLINE, connection.poll());
    let error = refused.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized)
        ),
        "{error}"
    );
}
