//! Open Inference Protocol v2 over HTTP, for programs on the box's own network: the same requests, bounds and answers
//! as over MQTT. Off unless the settings give it an address.
//!
//! It has a thread of its own, so that what is slow on HTTP does not hold up MQTT.

mod body;
mod listener;
mod metrics;
mod routes;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub(crate) use self::routes::Api;

/// The HTTP side, before it serves.
pub(crate) struct Http(TcpListener);

impl Http {
    /// Takes the address, so that one in use is found before anything is loaded.
    ///
    /// # Errors
    /// When the address is in use or not of this machine.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        info!(address = %listener.local_addr()?, "HTTP is served");
        Ok(Self(listener))
    }

    /// Serves on a thread of its own until `stop`; then open requests have as long as the process.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn serve(
        self,
        api: Api,
        stop: CancellationToken,
    ) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("http".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let served = runtime.and_then(|runtime| {
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(self.0)?;
                    listener::serve(listener, routes::router(Arc::new(api)), stop).await;
                    Ok(())
                })
            });
            if let Err(error) = served {
                error!(%error, "HTTP is not served any more");
            }
        })
    }
}
