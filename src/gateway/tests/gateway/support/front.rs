use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use vsock::Endpoint;

/// The TCP port in front of a node, as its parent would open it. It can be frozen: connections stay open and nothing
/// passes. When it thaws, connections that were frozen are cut.
pub(crate) struct Front {
    address: String,
    frozen: watch::Sender<bool>,
}

impl Front {
    pub(crate) async fn start(to: Endpoint) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let frozen = watch::Sender::new(false);
        tokio::spawn(accept(listener, to, frozen.subscribe()));
        Self { address, frozen }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }
}

async fn accept(listener: TcpListener, to: Endpoint, frozen: watch::Receiver<bool>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(pass(stream, to.clone(), frozen.clone()));
    }
}

async fn pass(mut client: TcpStream, to: Endpoint, mut frozen: watch::Receiver<bool>) {
    let Ok(mut node) = vsock::connect(&to).await else { return };
    let mut freezes = frozen.clone();
    let freeze = async {
        let _ = freezes.wait_for(|frozen| *frozen).await;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut node) => return,
        () = freeze => {}
    }
    let _ = frozen.wait_for(|frozen| !*frozen).await;
}
