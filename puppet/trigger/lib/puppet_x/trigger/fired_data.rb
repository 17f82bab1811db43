# frozen_string_literal: true

require 'digest'
require 'fileutils'
require 'puppet'

# Where modules of Puppet keep libraries of their own.
module PuppetX; end
# Those of this module.
module PuppetX::Trigger; end

# The data that a `trigger` with `on_change` has last fired for on this node, as a digest in a file of Puppet's state
# directory: the data may be secret.
class PuppetX::Trigger::FiredData
  # Returns the digest of any value of Puppet. The keys of a hash have no order, since data about other nodes come in any.
  def self.digest_of(value)
    Digest::SHA256.hexdigest(canonical(value))
  end

  def self.canonical(value)
    case value
    when Puppet::Pops::Types::PSensitiveType::Sensitive then canonical(value.unwrap)
    when Hash then "{#{value.map { |pair| pair.map { |part| canonical(part) }.join('=>') }.sort.join(',')}}"
    when Array then "[#{value.map { |element| canonical(element) }.join(',')}]"
    when nil, :undef then 'undef'
    when String then text(value)
    # The class tells 1 from 1.0 and from '1', and true from 'true'.
    else "#{value.class}(#{text(value.to_s)})"
    end
  end

  # With its length, so that no text can look like several.
  def self.text(value)
    "#{value.bytesize}:#{value.b}"
  end
  private_class_method :canonical, :text

  def initialize(trigger)
    # A name may be longer than a file's, and have slashes.
    @path = File.join(Puppet[:statedir], 'trigger', Digest::SHA256.hexdigest(trigger))
  end

  attr_reader :path

  # Returns the digest, or nil if this trigger has not fired for data yet.
  def digest
    File.read(path)
  rescue Errno::ENOENT
    nil
  end

  # Replaces the digest. After a crash the file has either this one or the last, and an event too many is harmless.
  def digest=(digest)
    FileUtils.mkdir_p(File.dirname(path), mode: 0o700)
    Puppet::Util.replace_file(path, 0o600) { |file| file.print(digest) }
  end
end
