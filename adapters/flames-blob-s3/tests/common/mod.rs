//! An S3 server in this process.
#![allow(dead_code, unreachable_pub)]

use flames_blob::BlobKey;
use flames_blob_s3::{S3BlobStore, S3Config};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::RwLock;
use tokio::task::JoinSet;

pub const BUCKET: &str = "flames-test";
pub const SECRET: &str = "flames/test+secret";

/// Ends with the value. Data is in a temporary folder.
pub struct S3Server {
    pub folder: TempDir,
    pub address: std::net::SocketAddr,
    _connections: JoinSet<()>,
}

impl S3Server {
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    pub async fn start_at(address: std::net::SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("flames-id", SECRET));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, builder.build()));
        Self { folder, address, _connections: connections }
    }

    pub fn url(&self, bucket: &str) -> String {
        let secret = SECRET.replace('/', "%2F").replace('+', "%2B");
        format!("s3://flames-id:{secret}@{bucket}/some/prefix?endpoint=http://{}", self.address)
    }

    pub async fn store(&self) -> S3BlobStore {
        S3BlobStore::open(self.config(BUCKET)).await.unwrap()
    }

    pub fn config(&self, bucket: &str) -> S3Config {
        S3Config::from_url(&self.url(bucket), |_| None).unwrap()
    }

    pub fn path(&self, key: &BlobKey) -> std::path::PathBuf {
        self.folder.path().join(BUCKET).join("some/prefix/blobs").join(key.as_str())
    }

    /// Parts of uploads that are not finished.
    pub fn parts(&self) -> usize {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().contains(".part-")).count()
    }
}

/// Turns one bit of a file over.
pub fn damage(path: &std::path::Path) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
}

async fn accept(listener: TcpListener, service: S3Service) {
    let order = Arc::new(RwLock::new(()));
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        connections.spawn(serve(socket, service.clone(), order.clone()));
    }
}

/// S3 checks a condition and writes in one step, and shows an object with its metadata or not at all. The
/// test server does it in several: the lock gives it S3's guarantees.
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
