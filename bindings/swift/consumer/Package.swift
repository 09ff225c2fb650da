// swift-tools-version:6.0
import PackageDescription

// A program as a user would write it: one dependency.
let package = Package(
    name: "consumer",
    platforms: [.macOS(.v13)],
    dependencies: [.package(name: "Fulcrum", path: "..")],
    targets: [.executableTarget(name: "consumer", dependencies: [.product(name: "Fulcrum", package: "Fulcrum")])]
)
