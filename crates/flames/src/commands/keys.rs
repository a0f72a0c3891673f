//! `flames key`.

use crate::cli::Key;
use crate::client::Client;
use crate::output;

pub(crate) async fn run(client: &Client, command: Key, json: bool) -> anyhow::Result<()> {
    match command {
        Key::Create { name } => {
            let created = client.create_key(name).await?;
            if json { output::json(&created) } else { output::line(created.key) }
        }
        Key::Ls => {
            let keys = client.keys().await?;
            if json {
                return output::json(&keys);
            }
            let rows = keys.into_iter().map(|key| vec![key.id, key.name, key.created_at.to_string()]);
            output::table(&["ID", "NAME", "MADE"], rows.collect())
        }
        Key::Revoke { id } => client.revoke_key(&id).await,
    }
}
