//! The proxy alone, for measurements: `proxy LISTEN HOST=UPSTREAM...`, until its standard input ends.

use flames_ingress::{Host, IngressProvider, Route, RouteId, RouteSet, Upstream};
use flames_ingress_proxy::{Proxy, ProxyConfig};
use std::error::Error;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().ok_or("usage: proxy LISTEN HOST=UPSTREAM...")?.parse()?;
    let routes =
        arguments.enumerate().map(|(n, argument)| route(n, &argument)).collect::<Result<Vec<_>, _>>()?;
    let proxy = Proxy::start(ProxyConfig::new(listen)).await?;
    proxy.apply(&RouteSet::new(routes)?).await?;
    println!("listening on {}", proxy.entrance()?);
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

fn route(n: usize, argument: &str) -> Result<Route, Box<dyn Error>> {
    let (host, upstream) = argument.split_once('=').ok_or("a route is HOST=UPSTREAM")?;
    let id = RouteId::parse(&format!("route-{n}"))?;
    Ok(Route::new(id, Host::parse(host)?, Upstream::Tcp(upstream.parse()?)))
}
