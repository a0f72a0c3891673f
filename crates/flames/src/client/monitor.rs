//! Alerts and use.

use super::Client;
use flames_api::model::{AlertList, TopView};
use reqwest::Method;

impl Client {
    pub(crate) async fn alerts(&self) -> anyhow::Result<AlertList> {
        self.json(self.request(Method::GET, &["alerts"])?).await
    }

    pub(crate) async fn top(&self) -> anyhow::Result<TopView> {
        self.json(self.request(Method::GET, &["top"])?).await
    }
}
