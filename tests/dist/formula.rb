# Evaluates the formula as Homebrew would on each platform, with a stand-in for Homebrew's class, and holds what it names
# to the sums of the release.
file, sums, version = ARGV

class Formula
  class << self
    attr_reader :told

    def platform=(platform)
      @@platform = platform
    end

    def inherited(formula)
      formula.instance_variable_set(:@told, {})
      @@last = formula
    end

    def last
      @@last
    end

    %i[desc homepage version license url sha256].each do |name|
      define_method(name) { |value| told[name] = value }
    end

    %i[on_macos on_linux on_arm on_intel].each do |name|
      define_method(name) { |&block| block.call if @@platform.include?(name) }
    end

    def test; end
  end
end

known = File.readlines(sums).to_h { |line| line.split.reverse }
archives = [%i[on_macos on_arm], %i[on_macos on_intel], %i[on_linux on_arm], %i[on_linux on_intel]].map do |platform|
  Formula.platform = platform
  Object.send(:remove_const, :Cogo) if Object.const_defined?(:Cogo)
  load file
  told = Formula.last.told
  name = File.basename(told.fetch(:url))
  abort "#{platform}: #{name}: not its sum" unless known.fetch(name) == told.fetch(:sha256)
  abort "#{platform}: #{told[:version]} and #{told[:url]}" unless told[:version] == version && told[:url].include?("/v#{version}/")
  name
end
wanted = { on_macos: "apple-darwin", on_linux: "linux-gnu" }
abort "wrong platforms: #{archives}" unless archives.uniq.size == 4 && archives.first(2).all? { |name| name.include?(wanted[:on_macos]) }
puts "#{archives.size} archives"
