# frozen_string_literal: true

# Relative, so that it is found in a server's environment and in an agent's lib directory alike.
require_relative '../trigger'

Puppet::Type.type(:trigger).provide(:configured, parent: Puppet::Provider::Trigger) do
  desc 'Fires through the backend of the node\'s configuration (`/etc/trigger/trigger.toml`). The default.'

  # Always the default, whatever the node: with several candidates Puppet warns and picks one.
  def self.default?
    true
  end
end
