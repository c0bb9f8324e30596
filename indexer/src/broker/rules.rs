//! Who may do what on the embedded broker: hooks that ask the access list. Connections through [`super::front`] are
//! known by their source address; one that is not known is refused.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use edge_identity::access::{Action, may};
use edge_identity::certificate::Identity;
use edge_identity::limits::Limits;
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::types::{
    AuthResult, ConnectInfo, Id, LastWill, ListenerId, Publish, PublishAclResult, Subscribe,
    SubscribeAclResult,
};

use super::front::{RightsNow, Sessions};
use super::quotas::Quotas;

/// Before whatever else listens.
const FIRST: u32 = 1_000;

/// The rules of one broker.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Who is connected over TLS.
    pub(super) sessions: Arc<Sessions>,
    /// Who may do less than its role.
    pub(super) rights: Option<RightsNow>,
    /// What is left of their quotas.
    pub(super) quotas: Arc<Quotas>,
    /// The listener that lets everybody do everything.
    pub(super) insecure: Option<ListenerId>,
}

impl Rules {
    /// Makes the broker ask these rules.
    pub(super) async fn enforce(self, context: &ServerContext) {
        let register = context.extends.hook_mgr().register();
        for event in [
            Type::ClientAuthenticate,
            Type::ClientSubscribeCheckAcl,
            Type::MessagePublishCheckAcl,
        ] {
            register
                .add_priority(event, FIRST, Box::new(self.clone()))
                .await;
        }
        register.start().await;
    }

    /// Who is behind a connection; none where everybody may do everything.
    fn who(&self, id: &Id) -> Result<Option<Arc<Identity>>, Stranger> {
        if self.insecure == Some(id.lid) {
            return Ok(None);
        }
        let address: Option<SocketAddr> = id.remote_addr;
        let known = address.and_then(|address| self.sessions.identity(address));
        known.map(Some).ok_or(Stranger)
    }

    fn may(&self, id: &Id, action: Action, topic: &str) -> bool {
        let allowed = match self.who(id) {
            Ok(None) => true,
            Ok(Some(who)) => {
                self.with_limits(&who, |limits| may(&who.subject, limits, action, topic))
            }
            Err(Stranger) => false,
        };
        if !allowed {
            let client_id: &str = &id.client_id;
            tracing::warn!(client_id, ?action, topic, "refused by the access list");
        }
        allowed
    }

    /// A client's ids begin with its certificate's name, and its will is a publish that no other rule sees.
    fn may_connect(&self, connect: &ConnectInfo) -> bool {
        let id = connect.id();
        let client_id: &str = &id.client_id;
        match self.who(id) {
            Ok(None) => true,
            Ok(Some(who)) if !who.subject.owns_client_id(client_id) => {
                let who = &who.subject;
                tracing::warn!(%who, client_id, "refused: this client id is another's");
                false
            }
            Ok(Some(_)) => match connect.last_will() {
                None => true,
                Some(LastWill::V3(will)) => self.may(id, Action::Publish, &will.topic),
                Some(LastWill::V5(will)) => self.may(id, Action::Publish, &will.topic),
            },
            Err(Stranger) => {
                tracing::warn!(client_id, "refused: no certificate");
                false
            }
        }
    }

    fn may_subscribe(&self, id: &Id, subscribe: &Subscribe) -> bool {
        let filter: &str = &subscribe.topic_filter;
        match subscribe.opts.shared_group() {
            None => self.may(id, Action::Subscribe, filter),
            Some(group) => self.may(id, Action::Subscribe, &format!("$share/{group}/{filter}")),
        }
    }

    fn may_publish(&self, id: &Id, publish: &Publish) -> bool {
        self.may(id, Action::Publish, &publish.topic) && self.is_within_quota(id)
    }

    /// Whether a publish is one of those that the client's limits leave it; it counts as one.
    fn is_within_quota(&self, id: &Id) -> bool {
        let Ok(Some(who)) = self.who(id) else {
            return true;
        };
        let per_minute = self.with_limits(&who, |limits| limits.per_minute);
        let is_within = per_minute.is_none_or(|most| self.quotas.take(who.key, most));
        if !is_within {
            tracing::debug!(who = %who.subject, "a publish over its quota");
        }
        is_within
    }

    fn with_limits<T>(&self, who: &Identity, ask: impl FnOnce(&Limits) -> T) -> T {
        let rights = self
            .rights
            .as_ref()
            .map(|rights| Arc::clone(&rights.borrow()));
        match rights
            .as_ref()
            .and_then(|rights| rights.limits.get(&who.key))
        {
            Some(limits) => ask(limits),
            None => ask(&Limits::default()),
        }
    }
}

/// Nobody that the front knows.
struct Stranger;

#[async_trait]
#[allow(
    elided_lifetimes_in_paths,
    reason = "written as the trait's own, or they differ"
)]
impl Handler for Rules {
    async fn hook(&self, parameter: &Parameter, known: Option<HookResult>) -> ReturnType {
        let decided = match parameter {
            Parameter::ClientAuthenticate(connect) => {
                HookResult::AuthResult(if self.may_connect(connect) {
                    AuthResult::Allow(false, None)
                } else {
                    AuthResult::NotAuthorized
                })
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                if self.may_subscribe(&session.id, subscribe) {
                    return (true, known);
                }
                HookResult::SubscribeAclResult(SubscribeAclResult::new_failure(
                    SubscribeAckReason::NotAuthorized,
                ))
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                if self.may_publish(&session.id, publish) {
                    return (true, known);
                }
                HookResult::PublishAclResult(PublishAclResult::rejected(false, None))
            }
            _ => return (true, known),
        };
        (false, Some(decided))
    }
}
