# frozen_string_literal: true

# @summary Where the nodes find the PuppetDB that this server stores catalogs in
# @api private
Puppet::Functions.create_function(:'trigger::puppetdb_url') do
  # @return The first address of PuppetDB, or undef where catalogs are not stored there, or it is known to this machine alone.
  # @example
  #   trigger::puppetdb_url()
  dispatch :url do
    return_type 'Optional[String[1]]'
  end

  def url
    return unless Puppet[:storeconfigs] && Puppet[:storeconfigs_backend].to_s == 'puppetdb'

    require 'puppet/util/puppetdb'
    url = Puppet::Util::Puppetdb.config.server_urls.first
    url.to_s unless url.nil? || url.scheme != 'https' || url.host.match?(/\A(localhost|127\..*|\[?::1\]?)\z/)
  rescue LoadError
    nil
  end
end
