//! Signs requests with the credentials that are in force.

use super::Access;
use rocketmq_client_rust::AclClientRPCHook;
use rocketmq_error::SharedError;
use rocketmq_protocol::protocol::remoting_command::RemotingCommand;
use rocketmq_transport::api::RPCHook;
use std::net::SocketAddr;

/// A hook of the client library: the library's own signs with the credentials it was made with, for good.
pub struct Signer(pub Access);

impl RPCHook for Signer {
    fn do_before_request(
        &self,
        address: SocketAddr,
        request: &mut RemotingCommand,
    ) -> Result<(), SharedError> {
        match self.0.credentials() {
            Some(credentials) => {
                AclClientRPCHook::new(credentials).do_before_request(address, request)
            }
            None => Ok(()),
        }
    }

    fn do_after_response(
        &self,
        _: SocketAddr,
        _: &RemotingCommand,
        _: &mut RemotingCommand,
    ) -> Result<(), SharedError> {
        Ok(())
    }
}
