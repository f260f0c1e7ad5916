//! Keeps links to the peers a role needs: dialling with jittered backoff.
