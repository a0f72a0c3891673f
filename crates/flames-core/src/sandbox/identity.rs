//! Who a sandbox is, decided before there is one: its name, its token, and the environment that tells it of itself.

use crate::SandboxId;
use crate::sandbox::admit::DEFAULT_USER;
use crate::sandbox::run;
use crate::token::TokenKey;
use flames_node::{Newcomer, Newcomers, Result, TemplateName};
use std::collections::BTreeMap;

/// What every sandbox from a template finds in its environment, and a clone of a snapshot if its creator asks for it. The names are those that programs written for E2B
/// read: see <https://e2b.dev/docs/sandbox/environment-variables>.
pub fn environment(id: &SandboxId, template: &str) -> BTreeMap<String, String> {
    [("E2B_SANDBOX", "true"), ("E2B_SANDBOX_ID", id.as_str()), ("E2B_TEMPLATE_ID", template)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// Names the machines of warm pools: what becomes of one is a sandbox under that name.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    pub(crate) tokens: TokenKey,
}

impl Newcomers for Ahead {
    fn next(&self, template: &TemplateName) -> Result<Newcomer> {
        let id = SandboxId::random();
        Ok(Newcomer {
            run: run::first(&id)?,
            access_token: self.tokens.access(&id),
            env: environment(&id, template.as_str()),
            default_user: DEFAULT_USER.to_owned(),
            hostname: id.to_string(),
        })
    }
}
