//! An S3 server in this process.

use crate::Scratch;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

/// A server with one bucket; its data is in a temporary folder. It ends with the value.
pub struct S3 {
    folder: Scratch,
    address: SocketAddr,
    _connections: JoinSet<()>,
}

impl S3 {
    /// The bucket that exists.
    pub const BUCKET: &str = "flames-test";
    /// The access key's id.
    pub const KEY_ID: &str = "flames-id";
    /// The secret, with what a URL must escape.
    pub const SECRET: &str = "flames/test+secret";

    /// A server on a free port.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// The same with its data on a disk, for more than fits into memory.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start_on_disk() -> Self {
        Self::start_over(Scratch::on_disk("s3"), ([127, 0, 0, 1], 0).into()).await
    }

    /// A server at an address.
    ///
    /// # Panics
    /// When it cannot be started.
    pub async fn start_at(address: SocketAddr) -> Self {
        Self::start_over(Scratch::new("s3"), address).await
    }

    async fn start_over(folder: Scratch, address: SocketAddr) -> Self {
        std::fs::create_dir(folder.path().join(Self::BUCKET)).expect("make the bucket");
        let files = FileSystem::new(folder.path()).expect("open the folder");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(Self::KEY_ID, Self::SECRET));
        let listener = TcpListener::bind(address).await.expect("listen on loopback");
        let address = listener.local_addr().expect("know the own address");
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, builder.build()));
        Self { folder, address, _connections: connections }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its data is: a folder for each bucket.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// As the blob store's setting takes it, with the credentials.
    pub fn url(&self, bucket: &str) -> String {
        let secret = Self::SECRET.replace('/', "%2F").replace('+', "%2B");
        format!("s3://{}:{secret}@{bucket}/some/prefix?endpoint=http://{}", Self::KEY_ID, self.address)
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, service: S3Service) {
    let order = Arc::new(RwLock::new(()));
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        // Head and body of an answer are two writes: without this the second waits for the client's
        // delayed acknowledgement of the first, 40 ms.
        let _ = socket.set_nodelay(true);
        connections.spawn(serve(socket, service.clone(), order.clone()));
    }
}

/// S3 checks a condition and writes in one step, and shows an object with its metadata or not at all. This
/// server does it in several: the lock gives it S3's guarantees.
async fn serve(socket: TcpStream, service: S3Service, order: Arc<RwLock<()>>) {
    let ordered = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (service, order) = (service.clone(), order.clone());
        async move {
            if is_write_of_object(&request) {
                let _alone = order.write().await;
                hyper::service::Service::call(&service, request).await
            } else {
                let _together = order.read().await;
                hyper::service::Service::call(&service, request).await
            }
        }
    });
    let connection = Builder::new(TokioExecutor::new());
    let _ = connection.serve_connection(TokioIo::new(socket), TowerToHyperService::new(ordered)).await;
}

/// Parts of uploads are no objects yet.
fn is_write_of_object<B>(request: &http::Request<B>) -> bool {
    let is_part = request.uri().query().is_some_and(|query| query.contains("partNumber"));
    !is_part && !matches!(*request.method(), http::Method::GET | http::Method::HEAD)
}
