# frozen_string_literal: true

# Written by `SNAPSHOTS=overwrite cargo test -p trigger --test puppet_module`.

# Relative, so that it is found in a server's environment and in an agent's lib directory alike.
require_relative '../trigger'

Puppet::Type.type(:trigger).provide(:dummy, parent: Puppet::Provider::Trigger) do
  desc 'Goes the whole way and delivers nothing: a dry run. Used only when named.'

  self.backend = 'dummy:'
end
