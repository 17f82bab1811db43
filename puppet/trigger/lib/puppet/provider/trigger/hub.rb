# frozen_string_literal: true

# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.

# Relative, so that it is found in a server's environment and in an agent's lib directory alike.
require_relative '../trigger'

Puppet::Type.type(:trigger).provide(:hub, parent: Puppet::Provider::Trigger) do
  desc 'Fires through the hub, at the URL that the configuration gives for it (`[backends.hub]`).'

  self.backend = 'hub'
end
